"""Predictions as JSON values, as `predict --json` prints and the server sends them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from vit_jax.inference.loaded import Prediction


def to_json(image: str, found: 'list[Prediction]') -> dict[str, Any]:
  """What is predicted for one image.

  Args:
    image: its path or name.
    found: of `Loaded.predict`.
  """
  predictions = [
    {'index': p.index, 'class': p.name, 'probability': round(p.probability, 6)} for p in found
  ]
  line: dict[str, Any] = {'image': image, 'predictions': predictions}
  if found[0].box is not None:
    line['box'] = [round(x, 6) for x in found[0].box]
  return line
