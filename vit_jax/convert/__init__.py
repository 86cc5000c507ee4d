"""Weights in and out of the neighbouring formats.

`load` brings a file into a model; `read` opens one; `write` saves a model's variables in a format;
`python -m vit_jax.convert` does it from the command line. Nothing is imported before it is used.
"""

import importlib

_LAZY = {
  'Options': 'loading',
  'Report': 'report',
  'Weights': 'files',
  'fit': 'loading',
  'load': 'loading',
  'load_with_report': 'loading',
  'build': 'building',
  'description': 'loading',
  'model_fields': 'building',
  'read': 'files',
  'write': 'writing',
}

__all__ = sorted(_LAZY)


def __getattr__(name: str):
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)
