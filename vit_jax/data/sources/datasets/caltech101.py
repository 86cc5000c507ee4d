"""Caltech-101: 101 classes of objects and one of backgrounds, 30 images of each for training."""

from collections.abc import Iterator

import numpy as np

from vit_jax.data.sources.published import Image, Unpacked, published
from vit_jax.errors import DatasetError

_TRAIN_PER_CLASS, _SEED = 30, 1234  # of TFDS's builder


@published(
  'caltech101',
  archives=('caltech-101.zip',),
  counts={'train': 3_059, 'test': 6_085},
  drawn=True,
  wanted=r'caltech-101/101_ObjectCategories\.tar\.gz|caltech-101/101_ObjectCategories/.+',
)
def read(given: Unpacked) -> Iterator[Image]:
  """Draws the training images by TFDS's seed.

  TFDS draws in the order in which a file system lists folders and files, so that its splits differ
  between machines, and their sizes by one: BACKGROUND_Google/tmp, which is no image, may be among
  the files drawn (the catalogue has 3,060 and 6,084 images for version 3.0.1). Here folders come in
  the order of TFDS's class names and files in that of theirs.
  """
  root = given.folder / 'caltech-101' / '101_ObjectCategories' / '101_ObjectCategories'
  folders = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: _label(given, p.name))
  rng = np.random.RandomState(_SEED)
  for folder in folders:
    label, names = _label(given, folder.name), sorted(path.name for path in folder.iterdir())
    if len(names) < _TRAIN_PER_CLASS:
      raise DatasetError(f'class {folder.name} has fewer than {_TRAIN_PER_CLASS} images')
    drawn = set(rng.choice(names, _TRAIN_PER_CLASS, replace=False))
    for name in names:
      if name.endswith('.jpg'):
        split = 'train' if name in drawn else 'test'
        file = (folder / name).relative_to(given.folder).as_posix()
        yield Image(split, f'{folder.name}/{name}', file, {'label': label})


def _label(given: Unpacked, folder: str) -> int:
  return given.label(folder.lower())
