"""'big_vision': files of google-research/big_vision, position embeddings apart from the encoder."""

import pathlib
from collections.abc import Collection

from vit_jax.weights.formats.base import Export, Format, register
from vit_jax.weights.formats.npz import gelu_notes


@register
class BigVision(Format):
  """Names as in the official files, at the top or below the tower of a training state."""

  name = naming = 'big_vision'
  container = 'npz'
  container_ending = '.npz'

  def recognises(self, names: Collection[str]) -> bool:
    if all(name.startswith(('params/', 'batch_stats/')) for name in names):
      return any('encoderblock' in n or n.startswith('params/embedding/') for n in names)
    # Position embeddings are at the top there, and in a module of their own in the official files;
    # blocks that a scan made are one array each.
    return any('/' in name for name in names) and any(
      '/encoderblock/' in name
      or (name.split('/')[-1] == 'pos_embedding' and 'posembed_input' not in name)
      for name in names
    )

  def notes(self, target: pathlib.Path, export: Export) -> list[str]:
    return gelu_notes(export.module)
