"""CIFAR-10 and CIFAR-100: images of 32 pixels in binary files, each after its labels."""

import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vit_jax.data.sources.published import Image, Unpacked, published

_COUNTS = {'train': 50_000, 'test': 10_000}


@published('cifar10', ('cifar-10-binary.tar.gz',), _COUNTS, wanted=r'cifar-10-batches-bin/.*')
def read_10(given: Unpacked) -> Iterator[Image]:
  """Five files of training images and one for the test."""
  return _read(
    given,
    given.folder / 'cifar-10-batches-bin',
    {'label': 'batches.meta.txt'},
    {'train': [f'data_batch_{k}.bin' for k in range(1, 6)], 'test': ['test_batch.bin']},
  )


@published('cifar100', ('cifar-100-binary.tar.gz',), _COUNTS, wanted=r'cifar-100-binary/.*')
def read_100(given: Unpacked) -> Iterator[Image]:
  """100 classes and their 20 superclasses."""
  return _read(
    given,
    given.folder / 'cifar-100-binary',
    {'coarse_label': 'coarse_label_names.txt', 'label': 'fine_label_names.txt'},
    {'train': ['train.bin'], 'test': ['test.bin']},
  )


def _read(
  given: Unpacked,
  folder: pathlib.Path,
  names: Mapping[str, str],
  splits: Mapping[str, Sequence[str]],
) -> Iterator[Image]:
  """Reads rows of labels, one byte each, and pixels [3, 32, 32].

  Args:
    given: whose class names are set.
    folder: of the files.
    names: file of class names by feature, in the order of a row's labels.
    splits: files by split.
  """
  for feature, file in names.items():
    text = (folder / file).read_text('utf-8')
    given.classes[feature] = tuple(name for name in text.splitlines() if name)
  width = len(names) + 3 * 32 * 32
  for split, files in splits.items():
    load = functools.partial(np.fromfile, dtype=np.uint8)
    rows = np.concatenate([load(folder / file).reshape(-1, width) for file in files])
    for key, row in enumerate(rows):
      labels = {feature: int(row[i]) for i, feature in enumerate(names)}
      pixels = row[len(names) :].reshape(3, 32, 32).transpose(1, 2, 0)
      yield Image(split, key, pixels, labels)
