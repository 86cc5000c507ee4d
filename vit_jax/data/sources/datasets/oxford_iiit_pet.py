"""Oxford-IIIT Pet: 37 breeds of cats and dogs. Splits are text files of names and labels."""

import sys
from collections.abc import Iterator

import PIL.Image

from vit_jax.data.sources.published import Image, Unpacked, published


@published(
  'oxford_iiit_pet',
  archives=('annotations.tar.gz', 'images.tar.gz'),
  counts={'train': 3_680, 'test': 3_669},
  wanted=r'annotations/(trainval|test)\.txt|images/[^/.][^/]*\.jpg',
)
def read(given: Unpacked) -> Iterator[Image]:
  """A few files are damaged or no JPEG: those that TFDS lists are encoded anew, as it does."""
  damaged = getattr(sys.modules[type(given.builder).__module__], '_CORRUPT_SAMPLES', ())
  for split, table in (('train', 'trainval'), ('test', 'test')):
    for line in (given.folder / 'annotations' / f'{table}.txt').read_text('utf-8').splitlines():
      name, label, species, _ = line.strip().split(' ')
      file = f'images/{name}.jpg'
      if name in damaged and (path := given.folder / file).is_file():
        with PIL.Image.open(path) as image:
          image.convert('RGB').save(path, 'JPEG', quality=95)
      labels = {'label': int(label) - 1, 'species': int(species) - 1}
      yield Image(split, f'{name}.jpg', file, labels)
