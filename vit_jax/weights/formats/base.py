"""What a weight format is, and the registry of them.

These modules import NumPy and the rest when they are used, not before: `--help` lists the formats.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError, WeightsError
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
# Of files of weights that no container here reads or writes.
_OTHER_ENDINGS = ('.ckpt', '.pkl', '.onnx', '.msgpack', '.gguf', '.tar', '.zip', '.json')


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
    writes_file: whether a target may be one file.
    container_ending: of that file where `ending` is none, so that help imports no container.
    folder_files: JSON files of a target that is a folder; () where it cannot be one.
    fallback: whether its names are so general that all other formats are tried first.
  """

  name: str = ''
  naming: str = ''
  container: str = ''
  ending: str = ''
  writes_file: bool = True
  container_ending: str = ''
  folder_files: tuple[str, ...] = ()
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

  def notes(self, target: pathlib.Path, export: Export) -> list[str]:
    """How the format's own programs have to be configured to compute the same."""
    return []

  @property
  def target_kind(self) -> str:
    """What a target is, in words: '.safetensors file or folder'."""
    kinds = [f'{self.file_ending} file'] if self.writes_file else []
    return ' or '.join([*kinds, *(['folder'] if self.folder_files else [])])

  @property
  def file_ending(self) -> str:
    """Of a target that is one file."""
    return self.ending or self.container_ending or CONTAINERS[self.container].endings[0]

  def is_folder(self, target: str) -> bool:
    """Whether a target of this name is written as a folder."""
    named_as_file = self.writes_file and target.lower().rstrip('/').endswith(self.file_ending)
    return bool(self.folder_files) and not named_as_file

  def check_name(self, target: str) -> None:
    """Raises a `ConfigError` where the ending of a target is that of something else."""
    ending = ending_of(target)
    if ending and not (self.writes_file and ending == self.file_ending):
      stem = target[: -len(ending)]
      names = [stem + self.file_ending] if self.writes_file else []
      names += [stem] if self.folder_files else []
      raise ConfigError(
        f'{target} is named as a {ending} file, and {self.name} is written as a '
        f'{self.target_kind}: name it {" or ".join(names)}'
      )

  def files(self, target: pathlib.Path) -> list[pathlib.Path]:
    """The files that `write` makes."""
    container = CONTAINERS[self.container]
    if self.is_folder(str(target)):
      weights = target / container.folder_file
      return [weights, *(target / name for name in self.folder_files)]
    return [target] if container.keeps_metadata else [target, record_path(target)]

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
    """Writes a model's folder: the arrays, and the content of each of `folder_files`."""
    make_folder(target)
    Format.write(self, target / CONTAINERS[self.container].folder_file, export)
    for name in self.folder_files:
      write_json(target / name, configs[name], ascii_only=True)
    return self.files(target)


def ending_of(target: str) -> str:
  """The ending of a file of weights that a name has, in small letters; '' for another or none."""
  endings = {ending for c in CONTAINERS.values() for ending in c.endings} | {*_OTHER_ENDINGS}
  found = [ending for ending in endings if target.lower().endswith(ending)]
  return max(found, key=len, default='')


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
