"""Datasets, image decoding, transforms and batches. Never imports jax.

The names below are resolved on first use, so that a command's `--help` waits for none of them.
"""

import importlib

_LAZY = {
  'AUGREG': 'transforms.augment',
  'OPS': 'transforms.base',
  'Dataset': 'dataset',
  'EvalBatches': 'loader',
  'Examples': 'dataset',
  'Preprocess': 'preprocess',
  'TrainBatches': 'loader',
  'Transform': 'transforms.parse',
  'cached': 'cache',
  'decode_image': 'decode',
  'eval_batches': 'loader',
  'open_dataset': 'dataset',
  'parse_transform': 'transforms.parse',
  'train_batches': 'loader',
}

__all__ = sorted(_LAZY)


def __getattr__(name: str):
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)
