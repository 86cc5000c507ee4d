"""What a report records of the model and the machine, besides the predictions."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Facts:
  """The circumstances of an evaluation; whatever is not known stays None or empty.

  Attributes:
    name: of the run, or of the weights.
    model: its registered name, with the fields that make it another.
    dataset: its name.
    split: that was evaluated, such as 'test'.
    step: of the checkpoint.
    image_size: (height, width) of the model's input in pixels.
    activation: how logits become probabilities, 'softmax' or 'sigmoid'; 'link' in files.
    config: the run's options, nested.
    parameters: numbers in the model's parameters.
    trained_parameters: those that training could change; None where there was no training here.
    devices: that computed.
    host_memory_bytes: peak resident memory of the process.
    device_memory_bytes: peak memory of the fullest device, where the platform reports it.
    versions: of packages.
    warnings: that were given while the model was trained or evaluated.
  """

  name: str
  model: str = ''
  dataset: str = ''
  split: str = ''
  step: int | None = None
  image_size: tuple[int, int] | None = None
  activation: str = 'softmax'
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  parameters: int | None = None
  trained_parameters: int | None = None
  devices: str = ''
  host_memory_bytes: int | None = None
  device_memory_bytes: int | None = None
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  warnings: tuple[str, ...] = ()

  def to_json(self) -> dict[str, Any]:
    """As predictions.npz and metrics.json hold it."""
    values = dataclasses.asdict(self)
    return {('link' if name == 'activation' else name): v for name, v in values.items()}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> 'Facts':
    """The inverse of `to_json`; names that a newer version added are left out."""
    values = {('activation' if name == 'link' else name): v for name, v in values.items()}
    known = {f.name for f in dataclasses.fields(cls)}
    values = {k: v for k, v in values.items() if k in known}
    size = values.get('image_size')
    return cls(
      **{
        **values,
        'image_size': tuple(size) if size else None,
        'warnings': tuple(values.get('warnings', ())),
      }
    )
