"""Datasets, image decoding, transforms and batches. Never imports jax.

The names below are resolved on first use, so that a command's `--help` waits for none of them.
"""

import importlib
from typing import Any

_LAZY = {
  'AUGREG': 'transforms.policies',
  'OPS': 'transforms.base',
  'Dataset': 'dataset',
  'EvalBatches': 'batches',
  'Examples': 'dataset',
  'ImageCache': 'cache',
  'Prefetch': 'batches',
  'Preprocess': 'preprocess',
  'TrainBatches': 'batches',
  'Transform': 'transforms.parse',
  'check_whole': 'whole',
  'decode_image': 'decode',
  'eval_batches': 'batches',
  'open_dataset': 'dataset',
  'parse_transform': 'transforms.parse',
  'train_batches': 'batches',
}

__all__ = sorted(_LAZY)


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{__name__}.{_LAZY[name]}'), name)
