"""Vision Transformers in JAX/Flax: train, fine-tune, evaluate, explain, convert and serve.

`vit_jax.load(x)` opens a run, a weights file or a named checkpoint for prediction.
"""

import importlib

__version__ = '0.1.0'

# Resolved on first use, so that importing the package starts nothing and costs nothing.
_LAZY = {
  'load': ('vit_jax.inference.loaded', 'load'),
  'Loaded': ('vit_jax.inference.loaded', 'Loaded'),
}

__all__ = ['Loaded', '__version__', 'load']


def __getattr__(name: str):
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, attribute = _LAZY[name]
  return getattr(importlib.import_module(module), attribute)
