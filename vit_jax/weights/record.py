"""What is known of weights beside their arrays."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import data
from vit_jax.data.trained_on import is_digests
from vit_jax.errors import UserError, WeightsError, shown
from vit_jax.weights.containers.checks import damaged, fields_of

if TYPE_CHECKING:
  from vit_jax.data.preprocess import Preprocess


VERSION = 1  # of our own records; those of version 0.1 state none


@dataclasses.dataclass(frozen=True)
class Record:
  """What our own files, the config of a repository, or the list of pretrained models state.

  Args:
    format: one of `FORMATS`; '' where it is not stated.
    config: options of the run that made the weights, with 'model' {'name': ..., field: value}; None
      where the record is not our own, so that the model has to be recognised.
    num_classes: outputs of the head; of our own records alone.
    classes: names in order; () where they are not stated.
    preprocess: how images become input; None where it is not stated.
    grid: (h, w) of the position embeddings; None where unknown.
    known: what arrays do not show of a model: 'num_heads', 'gelu', 'norm_epsilon', 'grid', ...
    task: options of the task, where a foreign file states that it is another than classification
      by softmax.
    hint: words that decide between models of the same tensors, such as an architecture's name.
    trained_on: digests of images by dataset, as `data.trained_on.TrainedOn` has them.
  """

  format: str = ''
  config: Mapping[str, Any] | None = None
  num_classes: int = 0
  classes: tuple[str, ...] = ()
  preprocess: 'Preprocess | None' = None
  grid: tuple[int, int] | None = None
  known: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  task: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hint: str = ''
  trained_on: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def over(self, other: 'Record') -> 'Record':
    """The fields that are stated here, those of the other record where they are not, all hints."""
    stated = {f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name))}
    return dataclasses.replace(other, **{**stated, 'hint': f'{self.hint} {other.hint}'})

  def to_json(self) -> dict[str, Any]:
    """Our own record as JSON values, as it is written into or beside a weights file."""
    record: dict[str, Any] = {
      'version': VERSION,
      'format': self.format,
      'config': self.config,
      'num_classes': self.num_classes,
      'classes': list(self.classes),
      'preprocess': self.preprocess.to_json() if self.preprocess else None,
    }
    if self.grid:
      record['grid'] = list(self.grid)
    if self.trained_on:
      record['trained_on'] = dict(self.trained_on)
    return record

  def to_metadata(self) -> dict[str, str]:
    """The texts that go into a file beside its arrays; 'format' is for PyTorch's readers."""
    return {'format': 'pt', METADATA: json.dumps(self.to_json())}

  @classmethod
  def from_json(cls, record: Mapping[str, Any], path: pathlib.Path) -> 'Record':
    """The inverse of `to_json`.

    Args:
      record: JSON values.
      path: the weights file, for messages.

    Raises:
      WeightsError: the record is damaged, or written by a newer version of this program.
    """
    with damaged(path, 'its record'):
      version = _count(record, 'version')
      if version > VERSION:
        raise WeightsError(
          f'{path}: its record has format {version}, and this version of vit_jax reads up to '
          f'{VERSION}: update vit_jax to a newer version'
        )
      try:
        stated = fields_of(record, 'preprocess')
        if stated and not fields_of(stated, 'transform', str):
          raise ValueError('no transform')
        preprocess = data.Preprocess.from_json(stated) if stated else None
      except (UserError, TypeError, ValueError) as e:
        raise WeightsError(f'{path}: its preprocessing record is broken: {e}') from e
      config = fields_of(record, 'config') if record.get('config') is not None else None
      model = fields_of(config or {}, 'model')
      if model and not fields_of(model, 'name', str):
        raise ValueError("its model has no 'name'")
      classes = fields_of(record, 'classes', list)
      if not all(isinstance(name, str) for name in classes):
        raise ValueError('classes that are no texts')
      trained_on = fields_of(record, 'trained_on')
      if not all(map(is_digests, trained_on.values())):
        raise ValueError('trained_on holds no digests')
      return cls(
        format=fields_of(record, 'format', str),
        config=config,
        num_classes=_count(record, 'num_classes'),
        classes=tuple(classes),
        preprocess=preprocess,
        grid=pair(record.get('grid')),
        trained_on=trained_on,
      )


_MOST_CLASSES = 1 << 24


def _count(record: Mapping[str, Any], field: str) -> int:
  value = record.get(field) or 0
  if type(value) is not int or not 0 <= value <= _MOST_CLASSES:
    raise ValueError(f'{field} is {shown(value)}, expected a count')
  return value


METADATA = 'vit_jax'  # the name of our record among the texts that a container keeps


def record_path(path: pathlib.Path) -> pathlib.Path:
  """Where the record of a weights file lies if its container keeps no texts."""
  return path.with_name(path.name + '.json')


def pair(size: Any) -> tuple[int, int] | None:
  """(h, w) of a JSON value: one number, or a list of two; None for anything else."""
  if isinstance(size, int):
    return size, size
  if isinstance(size, list | tuple) and len(size) == 2:
    return int(size[0]), int(size[1])
  return None
