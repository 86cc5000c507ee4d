"""A conversion table: rules, and how foreign names are brought to the ones that the rules know."""

import dataclasses
import re
from collections.abc import Iterable

from vit_jax.errors import WeightsError
from vit_jax.weights.containers.tensors import Tensors, View
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.rules import Rule

# Tensors under our own names that may be adapted; see `Rule.role`.
_OWN_ROLES = {
  'params/position_embedding': 'position',
  'params/patch_embedding/kernel': 'patch',
  'params/stem/root/conv/kernel': 'input',
  'params/root/conv/kernel': 'input',
  'params/stem/conv/kernel': 'input',
  'params/class_token': 'token',
  'params/distillation_token': 'token',
}


_NO_WEIGHTS = re.compile(r'(^|\.)(num_batches_tracked|position_ids|relative_position_index)$')


@dataclasses.dataclass(frozen=True)
class Table:
  """How one family of models names its arrays in one format.

  Args:
    rules: which foreign tensor is which of ours.
    anchor: a name that every such file has, perhaps below a prefix ('params/img/'), which is taken
      off. What lies beside that prefix (another tower, an optimizer) is left alone.
    renames: pairs (pattern, replacement) that bring older names to the rules' names.
    stacked: prefix of tensors that keep all blocks in one array, '' for none.
    unstacked: the prefix that each slice gets; `{i}` in it is the block.
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
    prefix = next(iter(self.prefixes(tensors)), '')  # of several, `submodels` has chosen one
    for old in tensors:
      new = old.removeprefix(prefix)
      if not old.startswith(prefix) or self.is_no_weight(new):
        left_out.append(old)
        continue
      new = self._renamed(new)
      if self.stacked and new.startswith(self.stacked):
        rest = new.removeprefix(self.stacked)
        shape = tensors.specs[old].shape
        for i in range(min(shape[0], 1000) if shape else 0):
          names[self.unstacked.format(i=i) + rest] = (old, i)
        continue
      if new in names:
        raise WeightsError(f'{tensors.path}: {old!r} and {names[new][0]!r} are the same tensor')
      names[new] = (old, None)
    return View(tensors, names), left_out

  def is_no_weight(self, name: str) -> bool:
    """Whether a tensor is a counter or an index, or what else no model of the family reads."""
    return bool(_NO_WEIGHTS.search(name) or (self.ignored and re.search(self.ignored, name)))

  def role_of(self, name: str) -> str:
    """The role of a foreign tensor, by its normalized name; '' for most."""
    for rule in self.rules:
      if any(rules.parse(t, name) is not None for t in (*rule.their_names, *rule.also)):
        return rule.role
    return own_role(name)

  def _renamed(self, name: str) -> str:
    for pattern, replacement in self.renames:
      name = re.sub(pattern, replacement, name)
    return name

  def prefixes(self, tensors: Iterable[str]) -> list[str]:
    """What stands before the anchor's name, once for each model that a file holds."""
    found = set()
    for name in tensors:
      renamed = self._renamed(name)
      if renamed.endswith(self.anchor):
        prefix = renamed.removesuffix(self.anchor)
        if name.startswith(prefix) and (not prefix or prefix[-1] in './'):
          found.add(prefix)
    return sorted(found, key=lambda p: (len(p), p))


def own_table(our_names: Iterable[str]) -> Table:
  """The table of arrays under our own names: every name is itself."""
  made = []
  for name in our_names:
    collection, rest = name.split('/', 1)
    made.append(Rule(name, rest, role=own_role(name), collection=collection))
  return Table(tuple(made), anchor='')


def own_role(name: str) -> str:
  """The role of a tensor under our own name; '' for most."""
  if name.startswith('params/head'):
    return 'head'
  return 'representation' if name.startswith('params/pre_logits/') else _OWN_ROLES.get(name, '')
