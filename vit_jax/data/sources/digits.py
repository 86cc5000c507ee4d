"""The embedded digits: 1797 handwritten digits of 8 by 8 pixels that come with scikit-learn."""

import functools
import gzip
import importlib.util
import pathlib

import numpy as np

from vit_jax.data import splits
from vit_jax.data.records import ArrayRecords, Source

_SIZES = {'train': 1297, 'val': 200, 'test': 300}
_SEED = 0  # the embedded split never varies, so that results on it can be compared


@functools.cache
def digits_source() -> Source:
  """Grey images `[8, 8, 1]` with values 0..255, stratified into 1297, 200 and 300."""
  values, labels = _values_and_labels()
  images = np.round(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
  classes = tuple(str(c) for c in range(10))
  order = splits.interleave(labels, classes, _SEED)
  records, first = {}, 0
  for split, size in _SIZES.items():
    rows = np.sort(order[first : first + size])
    records[split] = ArrayRecords(images[rows], labels[rows], f'digits/{split}')
    first += size
  return Source('digits', classes, records)


def _values_and_labels() -> tuple[np.ndarray, np.ndarray]:
  """Pixels 0..16, [1797, 64], and classes [1797]."""
  package = importlib.util.find_spec('sklearn')
  if package is not None and package.origin:
    file = pathlib.Path(package.origin).parent / 'datasets/data/digits.csv.gz'
    if file.is_file():  # importing scikit-learn takes a second
      with gzip.open(file, 'rt', encoding='utf-8') as rows:
        table = np.loadtxt(rows, delimiter=',')
      return table[:, :-1], table[:, -1].astype(np.int32)
  from sklearn.datasets import load_digits

  values, labels = load_digits(return_X_y=True)
  return values, labels.astype(np.int32)
