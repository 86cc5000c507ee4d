"""ImageNet's 1000 classes of 2012, whose archives are given to those alone who register."""

import posixpath
from collections.abc import Iterator

from vit_jax.data.sources.published import Image, Unpacked, published


@published(
  'imagenet2012',
  archives=('ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'),
  counts={'train': 1_281_167, 'validation': 50_000},
  wanted=r'n\d+\.tar|n\d+/\w+\.JPEG|\w+\.JPEG',
  register_at='https://image-net.org/download-images',
)
def read(given: Unpacked) -> Iterator[Image]:
  """Training images come in an archive for each class; TFDS lists the labels of the others."""
  import tensorflow_datasets as tfds

  for file in given.files('n*/*.JPEG'):
    folder, name = posixpath.split(file)
    yield Image('train', name, file, {'label': given.label(folder)})
  table = tfds.core.tfds_path('datasets/imagenet2012/validation_labels.txt')
  for file, label in zip(given.files('*.JPEG'), table.read_text('utf-8').split()):
    yield Image('validation', file, file, {'label': given.label(label)})
