"""Stanford Dogs: 120 breeds, images of ImageNet. Splits are lists in MATLAB files."""

import posixpath
from collections.abc import Iterator

from vit_jax.data.sources.published import Image, Unpacked, published


@published(
  'stanford_dogs',
  archives=('lists.tar', 'images.tar'),
  counts={'train': 12_000, 'test': 8_580},
  wanted=r'(train|test)_list\.mat|([\w-]+/)*\w*\.jpg',
)
def read(given: Unpacked) -> Iterator[Image]:
  """Classes are the folders in the list of training images, in small letters, sorted."""
  from scipy.io import loadmat

  listed = {
    split: list(map(str, loadmat(given.folder / f'{split}_list.mat', squeeze_me=True)['file_list']))
    for split in ('train', 'test')
  }
  split_of = {posixpath.basename(p): split for split, paths in listed.items() for p in paths}
  folders = {posixpath.dirname(path).lower() for path in listed['train']}
  given.classes['label'] = tuple(sorted(folders))
  for file in given.files('**/*.jpg'):
    folder, name = posixpath.split(file)
    if name in split_of:
      label = given.label(posixpath.basename(folder).lower())
      yield Image(split_of[name], file, file, {'label': label})
