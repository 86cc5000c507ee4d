"""The embedded digits: 1797 handwritten digits of 8 by 8 pixels that come with scikit-learn."""

import functools

import numpy as np

from vit_jax.data import splits
from vit_jax.data.records import ArrayRecords, Source

_SIZES = {'train': 1297, 'val': 200, 'test': 300}
_SEED = 0  # the embedded split never varies, so that results on it can be compared


@functools.cache
def digits_source() -> Source:
  """Grey images `[8, 8, 1]` with values 0..255, stratified into 1297, 200 and 300."""
  from sklearn.datasets import load_digits  # a second of imports that only this set needs

  digits = load_digits()
  images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
  labels = digits.target.astype(np.int32)
  classes = tuple(str(c) for c in digits.target_names)
  order = splits.interleave(labels, classes, _SEED)
  records, first = {}, 0
  for split, size in _SIZES.items():
    rows = np.sort(order[first : first + size])
    records[split] = ArrayRecords(images[rows], labels[rows], f'digits/{split}')
    first += size
  return Source('digits', classes, records)
