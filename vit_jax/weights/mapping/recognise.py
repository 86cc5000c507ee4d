"""Which format and which model a file's tensors are, told from their names and shapes."""

from collections.abc import Collection, Mapping
from typing import Any

from vit_jax.weights.formats.tensors import Tensors
from vit_jax.weights.mapping import families, families_other


def format_of(names: Collection[str]) -> str:
  """The format whose names these are, one of `tables.FORMATS`."""
  if all(name.startswith(('params/', 'batch_stats/')) for name in names):
    flax = any('encoderblock' in n or n.startswith('params/embedding/') for n in names)
    return 'big_vision' if flax else 'vit_jax'
  if any('embeddings.patch_embeddings' in name for name in names):
    return 'hf'
  if any(name.startswith(('conv1_conv/', 'Conv1/')) for name in names):
    return 'keras'
  if any('/' in name for name in names):
    # big_vision keeps position embeddings at the top, the official code in a module.
    top = any(
      name.split('/')[-1] == 'pos_embedding' and 'posembed_input' not in name for name in names
    )
    return 'big_vision' if top or any('/encoderblock/' in n for n in names) else 'npz'
  return 'timm'


def model_of(
  tensors: Tensors, format: str, hint: str = '', known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """The model that a file's tensors belong to.

  Args:
    tensors: of the file.
    format: one of `tables.FORMATS` but 'vit_jax', which says it itself.
    hint: file and repository names; they decide between models of the same tensors.
    known: what a config of the file states: 'num_heads', 'gelu', 'norm_epsilon', 'grid'.

  Returns:
    {'model': {'name': ..., field: value, ...}, 'num_classes': ..., 'grid': (h, w) or None}.

  Raises:
    UserError: no registered model fits.
  """
  found = families_other.other(tensors, format, known or {})
  return found or families.vit(tensors, format, hint.lower(), known or {})
