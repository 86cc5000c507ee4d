"""How images become model input; a small record that is saved with the weights."""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.data.transforms.parse import parse_transform
from vit_jax.errors import ConfigError, did_you_mean

_CHANNELS = {'rgb': 3, 'bgr': 3, 'grey': 1}


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """Everything between a file's bytes and the numbers that a network was trained on.

  Args:
    transform: the evaluation transform, 'decode|resize_small(256)|central_crop(224)'.
    mean: subtracted, on the 0..1 scale, one number a channel in the order of `channels`.
    std: divided by, likewise.
    channels: order of the channels in the network's input: 'rgb', 'bgr' or 'grey'.
  """

  transform: str
  mean: tuple[float, ...] = (0.5, 0.5, 0.5)
  std: tuple[float, ...] = (0.5, 0.5, 0.5)
  channels: str = 'rgb'

  def __post_init__(self) -> None:
    problems = []
    if self.channels not in _CHANNELS:
      problems.append(
        f'preprocess channels {self.channels!r}: {did_you_mean(self.channels, _CHANNELS)}'
      )
    count = _CHANNELS.get(self.channels, 3)
    for field in ('mean', 'std'):
      values = tuple(float(v) for v in getattr(self, field))
      if count == 1 and len(set(values)) == 1:
        values = values[:1]  # the default of three equal numbers serves grey as well
      object.__setattr__(self, field, values)
      if len(values) != count:
        problems.append(f'preprocess {field} has {len(values)} numbers, {count} channels need one')
    if any(v <= 0 for v in self.std):
      problems.append(f'preprocess std must be positive, got {self.std}')
    if problems:
      raise ConfigError(problems)

  def to_json(self) -> dict:
    """The record as JSON values."""
    return {
      'transform': self.transform,
      'mean': list(self.mean),
      'std': list(self.std),
      'channels': self.channels,
    }

  @classmethod
  def from_json(cls, record: dict) -> 'Preprocess':
    """The inverse of `to_json`; a name that is not a field is an error.

    Raises:
      ConfigError: an unknown or missing field.
    """
    names = [f.name for f in dataclasses.fields(cls)]
    unknown = [k for k in record if k not in names]
    problems = [f'preprocess field {k!r}: {did_you_mean(k, names)}' for k in unknown]
    if 'transform' not in record:
      problems.append("preprocess record without 'transform'")
    if problems:
      raise ConfigError(problems)
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return cls(**values)

  @property
  def image_size(self) -> tuple[int, int]:
    """Height and width that the transform gives, in pixels."""
    hw = parse_transform(self.transform).output_hw
    assert hw is not None  # parse_transform refuses a transform without a fixed size
    return hw

  @property
  def input_channels(self) -> int:
    """Channels of the images that the transform gives; `normalize` makes those of the network."""
    return parse_transform(self.transform).output.channels

  def normalize(self, images: Any) -> Any:
    """Turns pixels into network input.

    It uses only operators and methods that numpy and jax arrays share, so that the training step
    does this on the device, and neither this package nor its workers import jax.

    Args:
      images: 0..255, `[..., h, w, c]`; for 'grey' c is 1, or 3 that are weighted as luma.

    Returns:
      float32 `[..., h, w, c]`, c as `channels` says.
    """
    images = images.astype(np.float32)
    if self.channels == 'bgr':
      images = images[..., ::-1]
    if self.channels == 'grey' and images.shape[-1] == 3:
      images = images @ np.array([[0.299], [0.587], [0.114]], np.float32)
    mean, std = np.array(self.mean, np.float64), np.array(self.std, np.float64)
    scale = (1 / (255 * std)).astype(np.float32)
    return images * scale - (mean / std).astype(np.float32)
