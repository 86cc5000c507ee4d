"""Imagenette: ten classes of ImageNet that are easily told apart, in three sizes and two versions.

The first version has few validation images; use the second, whose names end with -v2.
"""

from collections.abc import Iterator

from vit_jax.data.sources.published import Image, Unpacked, published

_SIZES = {'full-size': '', '320px': '-320', '160px': '-160'}
_VERSIONS = {
  'imagenette2': ('-v2', {'train': 9_469, 'validation': 3_925}),
  'imagenette': ('', {'train': 12_894, 'validation': 500}),
}


def read(given: Unpacked) -> Iterator[Image]:
  """Folders {train,val}/CLASS, named by WordNet."""
  for file in given.files('*/*/*/*.JPEG'):
    _, split, label, name = file.split('/')
    split = {'train': 'train', 'val': 'validation'}[split]
    yield Image(split, name, file, {'label': given.label(label)})


for _base, (_suffix, _counts) in _VERSIONS.items():
  for _size, _part in _SIZES.items():
    published(
      f'imagenette/{_size}{_suffix}',
      archives=(f'{_base}{_part}.tgz',),
      counts=_counts,
      wanted=r'[\w-]+/(train|val)/\w+/\w+\.JPEG',
    )(read)
