"""Archives of the published datasets in their true layout, with made-up images, scaled down.

Image number k of a dataset is of one colour, `colour(k)`, so that each is known again.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Callable, Iterable

import numpy as np
import PIL.Image
import scipy.io

from vit_jax.data.sources import preparation, published

Members = Iterable[tuple[str, bytes]]
Wanted = dict[str, list[tuple[int, str]]]  # (number, class) of each image by split


@dataclasses.dataclass(frozen=True)
class Miniature:
  """A scaled-down dataset.

  Args:
    name: of `published.DATASETS`.
    write: writes the archives into a folder; returns what they hold.
  """

  name: str
  write: Callable[[pathlib.Path], Wanted]


def colour(k: int) -> tuple[int, int, int]:
  """Red and green as base 8 digits, and blue, far enough apart to survive JPEG."""
  return 16 + 32 * (k % 8), 16 + 32 * (k // 8 % 8), 16 + 32 * (k // 64 % 8)


def number_of(rgb: np.ndarray) -> int:
  """The number of an image by its colour [3]."""
  red, green, blue = (np.asarray(rgb, int) // 32).tolist()
  return red + 8 * green + 64 * blue


def image(k: int, kind: str = 'JPEG', mode: str = 'RGB') -> bytes:
  out = io.BytesIO()
  PIL.Image.new('RGB', (17, 13), colour(k)).convert(mode).save(out, kind)
  return out.getvalue()


def tar(path: pathlib.Path | None, members: Members, mode: str = 'w') -> bytes:
  """Writes a tar file with the folders that its members lie in, as GNU tar does."""
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode=mode) as archive:
    folders: set[pathlib.PurePosixPath] = set()
    for name, data in members:
      for folder in reversed(pathlib.PurePosixPath(name).parents[:-1]):
        if folder not in folders:
          info = tarfile.TarInfo(str(folder))
          info.type = tarfile.DIRTYPE
          archive.addfile(info)
          folders.add(folder)
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  if path is not None:
    path.write_bytes(out.getvalue())
  return out.getvalue()


def mat(**arrays: np.ndarray) -> bytes:
  out = io.BytesIO()
  scipy.io.savemat(out, arrays)
  return out.getvalue()


def _dogs(folder: pathlib.Path) -> Wanted:
  breeds = [f'n{2085620 + 7 * i:08}-{"Breed" if i % 2 else "breed"}_{i}-mix' for i in range(120)]
  wanted: Wanted = {'train': [], 'test': []}
  paths: dict[str, list[str]] = {'train': [], 'test': []}
  members = []
  for k in range(151):
    breed = breeds[k % 120]
    split = 'train' if k < 120 or k % 3 == 0 else 'test'
    path = f'{breed}/{breed.split("-")[0]}_{k}.jpg'
    members.append((f'Images/{path}', image(k)))
    paths[split].append(path)
    wanted[split].append((k, breed.lower()))
  members.append((f'Images/{breeds[0]}/n02085620_9999.jpg', image(5)))  # in no list
  tar(folder / 'images.tar', members)
  lists = []
  for split, listed in paths.items():
    column = np.empty((len(listed), 1), object)
    column[:, 0] = listed
    lists.append((f'{split}_list.mat', mat(file_list=column)))
  tar(folder / 'lists.tar', [*lists, ('file_list.mat', b'not read')])
  notes = [(f'Annotation/{p[:-4]}', _NOTE) for names in paths.values() for p in names]
  tar(folder / 'annotation.tar', notes)  # TFDS alone reads it
  return wanted


_NOTE = (
  b'<annotation><size><width>17</width><height>13</height></size><object><bndbox><xmin>1</xmin>'
  b'<ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>'
)


def _pets(folder: pathlib.Path) -> Wanted:
  names = ['Abyssinian', 'beagle', 'Egyptian_Mau', 'yorkshire_terrier']
  labels = {'Abyssinian': 1, 'beagle': 5, 'Egyptian_Mau': 12, 'yorkshire_terrier': 37}
  wanted: Wanted = {'train': [], 'test': []}
  lines: dict[str, str] = {'train': '', 'test': ''}
  members, masks = [], []
  # Abyssinian_34 is a PNG with transparency, among those that TFDS encodes anew.
  chosen = [(names[k % 4], k) for k in range(29)] + [('Abyssinian', 34)]
  for name, k in chosen:
    split = 'test' if k % 5 == 3 else 'train'
    data = image(k, 'PNG', 'RGBA') if k == 34 else image(k)
    members += [(f'images/{name}_{k}.jpg', data)]
    masks += [(f'annotations/trimaps/{name}_{k}.png', image(1, 'PNG', 'L'))]
    lines[split] += f'{name}_{k} {labels[name]} {1 if name[0].isupper() else 2} 1\n'
    wanted[split].append((k, name))
  members += [('images/._beagle_1.jpg', b'of a Mac'), ('images/Abyssinian_1.mat', b'x')]
  tar(folder / 'images.tar.gz', members, 'w:gz')
  tables = [('trainval', lines['train']), ('test', lines['test']), ('list', '# all\n')]
  notes = [(f'annotations/{name}.txt', text.encode()) for name, text in tables]
  tar(folder / 'annotations.tar.gz', [*notes, *masks], 'w:gz')
  return wanted


def _flowers(folder: pathlib.Path) -> Wanted:
  count = 113
  labels = np.array([[(7 * k) % 102 + 1 for k in range(count)]], np.uint8)
  order = np.random.default_rng(0).permutation(count) + 1
  ids = {'trnid': order[:31], 'valid': order[31:48], 'tstid': order[48:]}
  (folder / 'imagelabels.mat').write_bytes(mat(labels=labels))
  (folder / 'setid.mat').write_bytes(
    mat(**{key: rows[None].astype(np.uint16) for key, rows in ids.items()})
  )
  tar(
    folder / '102flowers.tgz',
    [(f'jpg/image_{k + 1:05}.jpg', image(k)) for k in range(count)],
    'w:gz',
  )
  splits = {'train': 'trnid', 'validation': 'valid', 'test': 'tstid'}
  names = _tfds_names('oxford_flowers102')
  return {
    split: [(int(i) - 1, names[labels[0, i - 1] - 1]) for i in ids[key]]
    for split, key in splits.items()
  }


def _cifar_rows(numbers: Iterable[int], *labels: Callable[[int], int]) -> bytes:
  rows = []
  for k in numbers:
    pixels = np.repeat(np.array(colour(k), np.uint8), 1024)
    pixels[:1024][:32] = 255  # the first row of the red channel tells the axes apart
    rows.append(bytes(label(k) for label in labels) + pixels.tobytes())
  return b''.join(rows)


def _cifar10(folder: pathlib.Path) -> Wanted:
  names = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
  base = 'cifar-10-batches-bin'
  files = [
    (f'{base}/data_batch_{i}.bin', _cifar_rows(range(11 * i, 11 * i + 11), lambda k: 3 * k % 10))
    for i in range(1, 6)
  ]
  files.append((f'{base}/test_batch.bin', _cifar_rows(range(200, 213), lambda k: 3 * k % 10)))
  files.append((f'{base}/batches.meta.txt', ('\n'.join(names) + '\n\n').encode()))
  tar(folder / 'cifar-10-binary.tar.gz', [*files, (f'{base}/readme.html', b'')], 'w:gz')
  return {
    'train': [(k, names[3 * k % 10]) for k in range(11, 66)],
    'test': [(k, names[3 * k % 10]) for k in range(200, 213)],
  }


def _cifar100(folder: pathlib.Path) -> Wanted:
  fine, coarse = [f'fine_{i}' for i in range(100)], [f'coarse_{i}' for i in range(20)]
  base = 'cifar-100-binary'
  rows = {'train': range(37), 'test': range(300, 311)}
  files = [
    (f'{base}/{split}.bin', _cifar_rows(numbers, lambda k: k % 20, lambda k: 7 * k % 100))
    for split, numbers in rows.items()
  ]
  for kind, names in (('fine', fine), ('coarse', coarse)):
    files.append((f'{base}/{kind}_label_names.txt', ('\n'.join(names) + '\n').encode()))
  tar(folder / 'cifar-100-binary.tar.gz', files, 'w:gz')
  return {split: [(k, fine[7 * k % 100]) for k in numbers] for split, numbers in rows.items()}


CALTECH_SIZES = {'BACKGROUND_Google': 41, 'Faces': 31, 'accordion': 37, 'water_lilly': 34}


def _caltech(folder: pathlib.Path) -> Wanted:
  members, wanted, k = [], [], 0
  for name, size in CALTECH_SIZES.items():
    for i in range(1, size + 1):
      members.append((f'101_ObjectCategories/{name}/image_{i:04}.jpg', image(k)))
      wanted.append((k, name.lower()))
      k += 1
  members.append(('101_ObjectCategories/BACKGROUND_Google/tmp', b'no image'))
  with zipfile.ZipFile(folder / 'caltech-101.zip', 'w') as archive:
    archive.writestr('caltech-101/', b'')
    archive.writestr('caltech-101/101_ObjectCategories.tar.gz', tar(None, members, 'w:gz'))
    archive.writestr('caltech-101/Annotations.tar', tar(None, [('a/b.mat', b'')]))
    archive.writestr('__MACOSX/caltech-101/._Annotations.tar', b'of a Mac')
  # Which are drawn for training, the test says.
  return {'all': wanted}


def _eurosat(folder: pathlib.Path) -> Wanted:
  wanted = []
  with zipfile.ZipFile(folder / 'EuroSAT.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('2750/', b'')
    for k in range(53):
      name = _tfds_names('eurosat')[k % 10]
      archive.writestr(f'2750/{name}/{name}_{k // 10 + 1}.jpg', image(k))
      wanted.append((k, name))
  return {'train': wanted}


def _food(folder: pathlib.Path) -> Wanted:
  wanted: Wanted = {'train': [], 'validation': []}
  tables: dict[str, dict[str, list[str]]] = {'train': {}, 'validation': {}}
  members = []
  for k in range(61):
    name = _tfds_names('food101')[5 * k % 101]
    split = 'validation' if k % 4 == 1 else 'train'
    tables[split].setdefault(name, []).append(f'{name}/{100 + k}')
    wanted[split].append((k, name))
    members.append((f'food-101/images/{name}/{100 + k}.jpg', image(k)))
  for split, file in (('train', 'train'), ('validation', 'test')):
    members.append((f'food-101/meta/{file}.json', json.dumps(tables[split]).encode()))
  members.append(('food-101/meta/classes.txt', b''))
  tar(folder / 'food-101.tar.gz', members, 'w:gz')
  return wanted


def _imagenette(folder: pathlib.Path, base: str) -> Wanted:
  wanted: Wanted = {'train': [], 'validation': []}
  members = [(f'{base}/.DS_Store', b''), (f'{base}/noisy_imagenette.csv', b'path,label')]
  for k in range(43):
    name = _tfds_names('imagenette')[k % 10]
    split = 'val' if k % 3 == 1 else 'train'
    members.append((f'{base}/{split}/{name}/ILSVRC2012_{split}_{k:08}.JPEG', image(k)))
    wanted['train' if split == 'train' else 'validation'].append((k, name))
  tar(folder / f'{base}.tgz', members, 'w:gz')
  return wanted


def _imagenet(folder: pathlib.Path) -> Wanted:
  names = _tfds_names('imagenet2012')
  chosen = [names[i] for i in (0, 17, 999)]
  inner = [
    (f'{name}.tar', tar(None, [(f'{name}_{k}.JPEG', image(k)) for k in range(j, 19, 3)]))
    for j, name in enumerate(chosen)
  ]
  tar(folder / 'ILSVRC2012_img_train.tar', inner)
  val = [(f'ILSVRC2012_val_{k:08}.JPEG', image(100 + k)) for k in (3, 1, 2, 5, 4)]
  tar(folder / 'ILSVRC2012_img_val.tar', val)
  import tensorflow_datasets as tfds

  table = tfds.core.tfds_path('datasets/imagenet2012/validation_labels.txt')
  return {
    'train': [(k, chosen[k % 3]) for k in range(19)],
    'validation': [(101 + i, n) for i, n in enumerate(table.read_text().split()[:5])],
  }


def _tfds_names(name: str) -> list[str]:
  import tensorflow_datasets as tfds

  return tfds.builder(name).info.features['label'].names


MINIATURES = {
  m.name: m
  for m in (
    Miniature('stanford_dogs', _dogs),
    Miniature('oxford_iiit_pet', _pets),
    Miniature('oxford_flowers102', _flowers),
    Miniature('cifar10', _cifar10),
    Miniature('cifar100', _cifar100),
    Miniature('caltech101', _caltech),
    Miniature('eurosat/rgb', _eurosat),
    Miniature('food101', _food),
    Miniature('imagenette/full-size-v2', lambda folder: _imagenette(folder, 'imagenette2')),
    Miniature('imagenette/320px', lambda folder: _imagenette(folder, 'imagenette-320')),
    Miniature('imagenet2012', _imagenet),
  )
}


def install(name: str, folder: pathlib.Path, counts: dict[str, int], url: str, put=setattr) -> None:
  """Has a dataset be what a folder holds.

  Args:
    name: of `published.DATASETS`.
    folder: with the archives.
    counts: images by split.
    url: of a server that has them as NAME/FILE.
    put: `setattr`, or pytest's.
  """
  dataset = dataclasses.replace(published.DATASETS[name], counts=counts)
  short = name.split('/')[0]
  rows = []
  for file in dataset.archives:
    data = (folder / file).read_bytes()
    checksum = hashlib.sha256(data).hexdigest()
    rows.append(published.Archive(file, f'{url}/{short}/{file}', len(data), checksum))
  entries = {**{key: published.DATASETS[key] for key in published.DATASETS}, name: dataset}
  put(published.DATASETS, '_entries', entries)
  listed = preparation.listed_archives
  put(preparation, 'listed_archives', lambda d: rows if d.name == name else listed(d))
