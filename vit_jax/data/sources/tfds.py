"""TFDS datasets, without TensorFlow: read at random from array_record files, or prepared here."""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax import machine
from vit_jax.console import phase
from vit_jax.data.records import Source
from vit_jax.data.sources.published import DATASETS, PublishedDataset
from vit_jax.data.splits import canonical
from vit_jax.errors import DatasetError, ImageError, did_you_mean, one_line


class UnknownNameError(DatasetError):
  """A name that TFDS does not know."""


class TfdsRecords:
  """One split of a TFDS dataset; images stay encoded.

  Args:
    source: what `as_data_source` gave.
    split: its name, which the ids begin with.
    image_key: feature with the image.
    label_key: feature with the class, or with several; 'KEY/PART' is a part of one.
  """

  def __init__(self, source: Any, split: str, image_key: str, label_key: str):
    self.source = source
    self.split = split
    self.image_key = image_key
    self.label_key = label_key
    self._labels: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.source)

  @property
  def labels(self) -> np.ndarray:
    if self._labels is None:
      rows = range(len(self.source))
      labels = (_first(self._read_labels(self._record(row))) for row in rows)
      self._labels = np.fromiter(labels, np.int32, len(rows))
    return self._labels

  @property
  def unlabelled(self) -> bool:
    rows = {0, len(self) // 2, len(self) - 1} if len(self) else set()
    labels = []
    for row in rows:
      with contextlib.suppress(ImageError):  # who reads it says so
        labels.append(self._read_labels(self._record(row)))
    return bool(labels) and all(label.ndim == 0 and label < 0 for label in labels)

  def id(self, row: int) -> str:
    return f'{self.split}/{row}'

  def read(self, row: int) -> dict[str, Any]:
    record = self._record(row)
    labels = self._read_labels(record)
    example = {'image': record[self.image_key], 'label': _first(labels)}
    return example if labels.ndim == 0 else {**example, 'all_labels': labels}

  def _record(self, row: int) -> Any:
    try:
      return self.source[row]
    except Exception as e:  # what a damaged file raises is nowhere written
      raise ImageError(f'image {self.id(row)} cannot be read: {one_line(e)[:200]}') from None

  def _read_labels(self, record: Any) -> np.ndarray:
    """The label [], or those of several classes [m]."""
    for key in self.label_key.split('/'):
      record = record[key]
    return np.asarray(record, np.int32)


def _first(labels: np.ndarray) -> int:
  return int(labels.flat[0]) if labels.size else -1


def is_tfds_folder(path: str) -> bool:
  """Whether the folder is one prepared version of a TFDS dataset."""
  return all(os.path.isfile(os.path.join(path, f)) for f in ('dataset_info.json', 'features.json'))


def holds_tfds_versions(path: str) -> bool:
  """Whether the folder is a TFDS dataset's, with its versions (and configurations) in it."""
  root = pathlib.Path(path)
  return any(any(root.glob(f'{below}/dataset_info.json')) for below in ('*', '*/*'))


def tfds_source(
  name: str, data_dir: str = '', image_key: str | None = None, label_key: str | None = None
) -> Source:
  """Opens a TFDS dataset that TFDS prepared, or one that is downloaded and prepared here.

  Args:
    name: 'stanford_dogs', 'imagenet2012:5.1.0', 'NAME/CONFIG', or a folder `is_tfds_folder` knows.
    data_dir: TFDS's data folder; its default is ~/tensorflow_datasets.
    image_key: feature with the image; the dataset's own choice when None.
    label_key: feature with the class, likewise.

  Raises:
    UnknownNameError: TFDS has no such dataset.
    DatasetError: not prepared and none of `published.DATASETS`, of a format without
      random access, without such features, or with files that are missing or damaged.
    DownloadError, StorageError: it cannot be downloaded or prepared.
  """
  builder = _open_builder(name, data_dir)
  if not _is_readable(builder):
    if dataset := _published(builder):
      from vit_jax.data.sources.preparation import published_source  # brings in http

      return published_source(dataset, builder, image_key, label_key)
    if not builder.info.splits:
      raise DatasetError(_not_prepared(builder, name, data_dir))
  import tensorflow_datasets as tfds

  image_key, label_key = _keys(builder, name, image_key, label_key)
  decoders = {image_key: tfds.decode.SkipDecoding()}
  _refuse_damaged_files(builder, name)
  records = {}
  named = _by_our_names(list(builder.info.splits))
  for split in builder.info.splits:
    try:
      source = builder.as_data_source(split, decoders=decoders)
    except (NotImplementedError, ValueError) as e:
      raise DatasetError(_wrong_format(builder, name, str(e))) from None
    records[named[split]] = TfdsRecords(source, split, image_key, label_key)
  label, several = _label_feature(builder.info.features, label_key)
  each = 'several' if several else 'one'
  return Source('tfds', tuple(label.names), records, shuffled=True, labels_per_image=each)


def _refuse_damaged_files(builder: Any, name: str) -> None:
  """Raises a `DatasetError` where files of array_record are missing, cut short or of other data.

  How many images a file has is at its end, so that this reads no more: 0.03 ms a file.
  """
  from array_record.python.array_record_module import ArrayRecordReader

  if builder.info.file_format.value != 'array_record':
    return
  problems = []
  for split in builder.info.splits.values():
    for path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
      try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        reader.close()
        if count != expected:
          problems.append(f'{path} has {count:,} images and not the {expected:,} of its index')
      except (RuntimeError, OSError, ValueError) as e:
        damaged = f'is damaged: {one_line(e)[:200] or "it is cut short"}'
        problems.append(f'{path} {damaged if os.path.exists(path) else "is missing"}')
  if problems:
    more = f', and {len(problems) - 1} more files like that' if len(problems) > 1 else ''
    raise DatasetError(f'TFDS dataset {name!r}: {problems[0]}{more}; copy or prepare it again')


def _by_our_names(splits: list[str]) -> dict[str, str]:
  """Our name of each split; of two with one, such as 'validation' and 'dev', one keeps its own."""
  named: dict[str, str] = {}
  for split in sorted(splits, key=lambda s: (s != canonical(s), s != 'validation')):
    ours = canonical(split)
    named[split] = split if ours in named.values() else ours
  return named


def needs_download(name: str, data_dir: str = '') -> bool:
  """Whether `tfds_source` would download the dataset; False where it would raise an error."""
  try:
    builder = _open_builder(name, data_dir)
  except DatasetError:
    return False
  from vit_jax.data.sources.preparation import is_prepared

  dataset = None if _is_readable(builder) else _published(builder)
  return dataset is not None and not is_prepared(dataset, builder)


def _open_builder(name: str, data_dir: str) -> Any:
  """TFDS's builder of a dataset, prepared or not."""
  import tensorflow_datasets as tfds  # takes a moment, and only these datasets need it

  if is_tfds_folder(name):
    return tfds.builder_from_directory(name)
  data_dir = os.path.expanduser(data_dir)
  try:
    # TFDS prints in large letters what it lacks.
    with contextlib.redirect_stdout(io.StringIO()), _asking(name):
      return tfds.builder(name, **({'data_dir': data_dir} if data_dir else {}))
  except tfds.core.DatasetNotFoundError:
    short = name.split('/')[0].split(':')[0]
    raise UnknownNameError(
      f'TFDS has no dataset {name!r}: {did_you_mean(short, known_names())}'
    ) from None
  except ImportError as e:
    package = e.name or 'tensorflow'  # the one that its own import hook does not name
    raise DatasetError(
      f'TFDS cannot open {name!r} without the package {package}: pip install {package}; the folder '
      'of a dataset that TFDS has prepared, with dataset_info.json, opens without'
    ) from None
  except Exception as e:  # a builder is code of others
    problem = ' '.join(str(e).split('Here are')[0].split())[:200]
    raise DatasetError(f'TFDS cannot open {name!r}: {problem}{_configs(name)}') from None


@contextlib.contextmanager
def _asking(name: str) -> Iterator[None]:
  """Says where a dataset of a namespace is looked for, as TFDS asks its host."""
  space = re.match(r'([\w-]+):[a-zA-Z]', name)
  with contextlib.ExitStack() as stack:
    if space:
      stack.enter_context(phase(f'asking {space[1]} for the dataset {name}', told_after=0))
    yield


def known_names() -> set[str]:
  """The datasets that the installed TFDS has."""
  import tensorflow_datasets as tfds

  return set(tfds.list_builders(with_community_datasets=False))


def names_that_prepare_themselves() -> list[str]:
  """Those of `published.DATASETS`, without configurations."""
  return sorted({name.split('/')[0] for name in DATASETS})


def _configs(name: str) -> str:
  """The configurations of a dataset that are nearest to the one that a name asks for."""
  import tensorflow_datasets as tfds

  short, slash, config = name.partition('/')
  try:
    known = [config.name for config in tfds.builder_cls(short).BUILDER_CONFIGS] if slash else []
  except Exception:  # as above: the dataset is unknown, or its code fails
    return ''
  return f'; {did_you_mean(config.partition(":")[0], known)}' if known else ''


def _is_readable(builder: Any) -> bool:
  """Whether TFDS has prepared the dataset in a format with random access."""
  from tensorflow_datasets.core.file_adapters import FileFormat

  return bool(builder.info.splits) and builder.info.file_format in FileFormat.with_random_access()


def _published(builder: Any) -> PublishedDataset | None:
  """The dataset, if it prepares itself."""
  config = builder.builder_config
  full_name = f'{builder.name}/{config.name}' if config else builder.name
  return DATASETS[full_name] if full_name in DATASETS else None  # noqa: SIM401  raises its own


def _not_prepared(builder: Any, name: str, data_dir: str) -> str:
  where = [f'--data_dir={data_dir}'] if data_dir else []
  command = machine.shell_line(['tfds', 'build', name, '--file_format=array_record', *where])
  return (
    f'TFDS dataset {name!r} is not prepared in {builder.data_dir}, which takes TensorFlow, once: '
    f'pip install tensorflow && {command}. These alone '
    f'prepare themselves: {", ".join(names_that_prepare_themselves())}'
  )


def _keys(builder: Any, name: str, image_key: str | None, label_key: str | None) -> tuple[str, str]:
  """The features with image and class."""
  features = builder.info.features
  supervised = builder.info.supervised_keys
  if supervised and len(supervised) == 2 and all(isinstance(k, str) for k in supervised):
    image_key, label_key = image_key or supervised[0], label_key or supervised[1]
  image_key = image_key or 'image'
  common = [k for k in ('label', 'labels', 'objects/label') if k.split('/')[0] in features]
  label_key = label_key or (common[0] if common else 'label')
  problems = [
    f'TFDS dataset {name!r} has no feature {key!r} for {option}: {did_you_mean(key, features)}'
    for option, key in (('image_key', image_key), ('label_key', label_key.split('/')[0]))
    if key not in features
  ]
  if not problems and not hasattr(_label_feature(features, label_key)[0], 'names'):
    valid = sorted(k for k in features if hasattr(features[k], 'names'))
    problems.append(
      f'TFDS dataset {name!r}: feature {label_key!r} is not a class; set '
      f'label_key to one of {valid}'
    )
  if problems:
    raise DatasetError(problems)
  return image_key, label_key


def _label_feature(features: Any, label_key: str) -> tuple[Any, bool]:
  """The feature that a key such as 'objects/label' names, and whether it has several values."""
  from tensorflow_datasets.core.features import Sequence

  feature, several = features, False
  for key in label_key.split('/'):
    if not hasattr(feature, 'keys') or key not in feature:
      return None, several
    feature = feature[key]
    if isinstance(feature, Sequence):  # of classes, or of dictionaries
      several, feature = True, feature.feature
  return feature, several


def _wrong_format(builder: Any, name: str, reason: str) -> str:
  if 'random access' not in reason.lower():
    return f'TFDS cannot read {name!r}: {" ".join(reason.split())[:200]}'
  where = f'--dataset_dir={builder.data_dir}'
  command = machine.shell_line(['tfds', 'convert_format', where, '--out_file_format=array_record'])
  return (
    f'TFDS dataset {name!r} in {builder.data_dir} is stored as '
    f'{builder.info.file_format.value}, which cannot be read at random; convert it once: {command}'
  )
