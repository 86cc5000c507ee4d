"""Food-101: 101 dishes; the official test images are TFDS's split `validation`."""

import json
from collections.abc import Iterator

from vit_jax.data.sources.published import Image, Unpacked, published


@published(
  'food101',
  archives=('food-101.tar.gz',),
  counts={'train': 75_750, 'validation': 25_250},
  wanted=r'food-101/meta/(train|test)\.json|food-101/images/\w+/\w+\.jpg',
)
def read(given: Unpacked) -> Iterator[Image]:
  """Splits are JSON files of image names by class."""
  for split, table in (('train', 'train'), ('validation', 'test')):
    text = (given.folder / 'food-101' / 'meta' / f'{table}.json').read_text('utf-8')
    for label, names in json.loads(text).items():
      for name in names:
        file = f'food-101/images/{name}.jpg'
        yield Image(split, name, file, {'label': given.label(label)})
