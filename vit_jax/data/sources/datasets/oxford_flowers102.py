"""Oxford Flowers: 102 classes. Splits and labels are MATLAB files beside the images."""

from collections.abc import Iterator

from vit_jax.data.sources.published import Image, Unpacked, published


@published(
  'oxford_flowers102',
  archives=('setid.mat', 'imagelabels.mat', '102flowers.tgz'),
  counts={'train': 1_020, 'test': 6_149, 'validation': 1_020},
  wanted=r'jpg/image_\d+\.jpg',
)
def read(given: Unpacked) -> Iterator[Image]:
  """The small official splits are those that the field trains on; the test split is the largest."""
  from scipy.io import loadmat

  labels = loadmat(given.archives['imagelabels.mat'])['labels'][0]
  ids = loadmat(given.archives['setid.mat'])
  for split, key in (('train', 'trnid'), ('test', 'tstid'), ('validation', 'valid')):
    for number in map(int, ids[key][0]):
      name = f'image_{number:05d}.jpg'
      yield Image(split, name, f'jpg/{name}', {'label': int(labels[number - 1]) - 1})
