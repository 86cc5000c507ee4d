"""What a transformer attends to, and what it learned: functions that return arrays, and figures.

`python -m vit_jax.visualize MODEL IMAGE... --out=DIR` draws all of it. From Python:

  pixels, captured = capture_image(loaded, 'photo.jpg')  # attention and tokens of every block
  heat = rollout_map(captured, fusion='max', discard=0.9)  # [b, rows, columns]
  image = overlay(pixels, heat[0])                       # uint8 [h, w, 3]
"""

import importlib
from typing import Any

# Resolved on first use: `--help` must not wait for JAX, nor arrays for matplotlib.
_LAZY = {
  'activations': ('Captured', 'Layer', 'NotApplicable', 'capture', 'capture_gradients'),
  'figures': (
    'attention_figure',
    'distance_figure',
    'filter_figure',
    'overlay_figure',
    'position_figure',
    'save',
    'sheet_figure',
  ),
  'learned': (
    'attention_distance',
    'patch_filters',
    'position_similarity',
    'principal_components',
    'uniform_distance',
  ),
  'heat': ('colormap', 'enlarge', 'overlay', 'scale'),
  'grids': ('image_figure', 'prediction_figure', 'qkv_figure'),
  'images': ('capture_image',),
  'flow': (
    'attention_map',
    'attention_terms',
    'gradient_rollout',
    'gradient_rollout_map',
    'rollout',
    'rollout_map',
  ),
  'tokens': ('channel_maps', 'embeddings', 'nearest', 'token_pca'),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  # No submodule may have the name of a function: importing it would hide the function.
  return getattr(importlib.import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
