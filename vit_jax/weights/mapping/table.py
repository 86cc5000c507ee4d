"""A conversion table: rules, and how foreign names are brought to the ones that the rules know."""

import dataclasses
import re

from vit_jax.errors import UserError
from vit_jax.weights.formats.tensors import Tensors, View
from vit_jax.weights.mapping.rules import Rule


@dataclasses.dataclass(frozen=True)
class Table:
  """How one family of models is kept in one format.

  Args:
    rules: which foreign tensor is which of ours.
    anchor: a name that every such file has, perhaps below a prefix ('params/img/'), which is taken
      off. What lies beside that prefix (another tower, an optimizer) is left alone.
    renames: pairs (pattern, replacement) that bring older names to the rules' names.
    stacked: prefix of tensors that keep all blocks in one array, '' for none; `{i}` in `unstacked`
      is the block.
    unstacked: the prefix that each slice gets.
    ignored: pattern of tensors that are no weights, such as counters.
    class_slot: whether this format's position embeddings have a place for the class token.
  """

  rules: tuple[Rule, ...]
  anchor: str
  renames: tuple[tuple[str, str], ...] = ()
  stacked: str = ''
  unstacked: str = ''
  ignored: str = ''
  class_slot: bool = True

  def normalized(self, tensors: Tensors) -> tuple[Tensors, list[str]]:
    """The tensors under the rules' names, and the names of those that were left out."""
    names: dict[str, tuple[str, int | None]] = {}
    left_out = []
    prefix = self._prefix(tensors)
    for old in tensors:
      new = old.removeprefix(prefix)
      if not old.startswith(prefix) or (self.ignored and re.search(self.ignored, new)):
        left_out.append(old)
        continue
      for pattern, replacement in self.renames:
        new = re.sub(pattern, replacement, new)
      if self.stacked and new.startswith(self.stacked):
        rest = new.removeprefix(self.stacked)
        shape = tensors.specs[old].shape
        for i in range(min(shape[0], 1000) if shape else 0):
          names[self.unstacked.format(i=i) + rest] = (old, i)
        continue
      if new in names:
        raise UserError(f'{tensors.path}: {old!r} and {names[new][0]!r} are the same tensor')
      names[new] = (old, None)
    return View(tensors, names), left_out

  def _prefix(self, tensors: Tensors) -> str:
    found = []
    for name in tensors:
      renamed = name
      for pattern, replacement in self.renames:
        renamed = re.sub(pattern, replacement, renamed)
      if renamed.endswith(self.anchor):
        prefix = renamed.removesuffix(self.anchor)
        if name.startswith(prefix) and (not prefix or prefix[-1] in './'):
          found.append(prefix)
    # Of two towers the one of images is meant; of a model and its teacher, the shorter prefix.
    return min(found, key=lambda p: ('img' not in p, len(p), p), default='')
