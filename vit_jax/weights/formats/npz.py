"""'npz': the official files of google-research's vision_transformer and big_transfer."""

import pathlib
from collections.abc import Collection

from vit_jax.weights.formats.base import Export, Format, register


@register
class Official(Format):
  """Names with slashes, as Flax and TensorFlow make them."""

  name = naming = 'npz'
  container = 'npz'
  ending = '.npz'
  fallback = True

  def recognises(self, names: Collection[str]) -> bool:
    return any('/' in name for name in names)

  def notes(self, target: pathlib.Path, export: Export) -> list[str]:
    return gelu_notes(export.module)


def gelu_notes(module) -> list[str]:
  """Notes what Google's code computes with weights that were trained with the exact GELU."""
  if getattr(module, 'gelu', 'tanh') == 'tanh':
    return []
  return ['these weights use the exact GELU; the official code computes the tanh approximation']
