"""EuroSAT: satellite images of 64 pixels, 10 kinds of land use; without official splits."""

import posixpath
from collections.abc import Iterator

from vit_jax.data.sources.published import Image, Unpacked, published


@published('eurosat/rgb', ('EuroSAT.zip',), {'train': 27_000}, wanted=r'2750/[^/]+/[^/]+')
def read(given: Unpacked) -> Iterator[Image]:
  """All images are TFDS's split `train`; the class is how a file's name begins."""
  for file in given.files('2750/*/*'):
    name = posixpath.basename(file)
    label = name.split('_')[0]
    yield Image('train', f'{label}_{name}', file, {'label': given.label(label)})
