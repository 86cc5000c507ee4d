"""What a weight format is, and the registry of them.

These modules import NumPy and the rest when they are used, not before: `--help` lists the formats.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.errors import WeightsError
from vit_jax.files import make_folder, write_json
from vit_jax.registry import Registry
from vit_jax.weights.containers.base import CONTAINERS
from vit_jax.weights.record import Record, record_path

if TYPE_CHECKING:
  import flax.linen as nn
  import numpy as np

  from vit_jax.data.preprocess import Preprocess
  from vit_jax.weights.containers.tensors import Tensors

# The naming of formats whose arrays have our own names: they need no rules, whatever the model.
OWN_NAMES = 'vit_jax'


@dataclasses.dataclass(frozen=True)
class Export:
  """A model that is being written.

  Args:
    tensors: under the names of the format.
    record: all that is known of them.
    module: the model.
    preprocess: how images become its input.
  """

  tensors: Mapping[str, 'np.ndarray']
  record: Record
  module: 'nn.Module'
  preprocess: 'Preprocess'

  @property
  def image_size(self) -> tuple[int, int]:
    """(h, w) in pixels."""
    return self.preprocess.image_size

  @property
  def model_name(self) -> str:
    return str((self.record.config or {})['model']['name'])


class Format:
  """How weights are kept: a naming of arrays, in a container, with a record of the rest.

  Attributes:
    name: for `--to` and `--from`.
    naming: of its arrays, for which families of models have rules; OWN_NAMES needs none.
    container: in which it is written, one of `CONTAINERS`. It is read from any.
    ending: of a target that means this format where none is named; '' for none.
    fallback: whether its names are so general that all other formats are tried first.
  """

  name: str = ''
  naming: str = ''
  container: str = ''
  ending: str = ''
  fallback: bool = False

  def recognises(self, names: Collection[str]) -> bool:
    """Whether arrays of these names are in this format."""
    return False

  def canonical(self, tensors: 'Tensors') -> 'Tensors':
    """The tensors under the names that the rules know, where a container has others."""
    return tensors

  def file_record(self, tensors: 'Tensors') -> Record | None:
    """What a file of this format states beside its arrays; None where it states nothing."""
    return None

  def folder_record(self, folder: pathlib.Path) -> Record | None:
    """What JSON files beside the arrays in a folder state; None for those of other formats."""
    return None

  def notes(self, module: 'nn.Module') -> list[str]:
    """What the format's own programs would compute otherwise unless they are configured."""
    return []

  def write(self, target: pathlib.Path, export: Export) -> list[pathlib.Path]:
    """Writes a file, with its record inside or beside it.

    Returns:
      The files written.

    Raises:
      WeightsError: the format cannot hold this.
      StorageError: a file cannot be written.
    """
    container = CONTAINERS[self.container]
    assert container.write is not None, f'{self.name} is written in a container that is only read'
    container.write(target, export.tensors, export.record.to_metadata())
    if container.keeps_metadata:
      return [target]
    write_json(record_path(target), export.record.to_json(), ascii_only=True)
    return [target, record_path(target)]

  def write_folder(
    self, target: pathlib.Path, export: Export, configs: Mapping[str, Mapping[str, Any]]
  ) -> list[pathlib.Path]:
    """Writes a model's folder: the arrays, and JSON files by name."""
    make_folder(target)
    weights = target / CONTAINERS[self.container].folder_file
    Format.write(self, weights, export)
    for name, content in configs.items():
      write_json(target / name, content, ascii_only=True)
    return [weights, *(target / name for name in configs)]


FORMATS: Registry[Format] = Registry('weight format', 'vit_jax.weights.formats')


def register(format_class: type[Format]) -> type[Format]:
  """Adds a format to `FORMATS` under its name; a class decorator."""
  FORMATS.add(format_class.name, format_class())
  return format_class


def in_order() -> list[Format]:
  """All formats in the order in which they are tried."""
  return sorted(FORMATS.values(), key=lambda f: f.fallback)


def recognise(names: Collection[str]) -> str:
  """The format of arrays of these names."""
  return next(format.name for format in in_order() if format.recognises(names))


_GELUS = {
  'exact': ('', 'gelu', 'gelu_python', 'gelu_erf', 'GELU'),
  'tanh': (
    'gelu_tanh', 'gelu_pytorch_tanh', 'gelu_new', 'gelu_fast', 'gelu_accurate',
    'gelu_python_tanh', 'GELUTanh',
  ),
}  # fmt: skip


def gelu_of(activation: str, where: str) -> str:
  """The `gelu` of our models that an activation of timm or transformers means.

  Args:
    activation: its name there; '' for the default.
    where: the file and option, for messages.

  Raises:
    WeightsError: an activation that our models do not have.
  """
  found = next((kind for kind, names in _GELUS.items() if activation in names), None)
  if found is None:
    raise WeightsError(
      f'{where} is {activation!r}, which our models do not have: expected the exact GELU '
      "('gelu') or its tanh approximation ('gelu_pytorch_tanh', 'gelu_tanh')"
    )
  return found
