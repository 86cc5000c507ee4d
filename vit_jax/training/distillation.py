"""A teacher model that gives logits for training batches, and their cache on disk."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import processes, tasks
from vit_jax.config import Config
from vit_jax.data import Examples, class_names
from vit_jax.errors import ConfigError, StorageError, UserError
from vit_jax.files import make_folder
from vit_jax.inference.loaded import Loaded, load
from vit_jax.parallel import Placement
from vit_jax.training import flops
from vit_jax.training.experiment import Experiment, NotDownloadedError
from vit_jax.training.train_step import mixed, step_key
from vit_jax.weights.reading import needs_download

log = logging.getLogger(__name__)

_CRC_BYTES = 4


def open_teacher(
  config: Config, experiment: Experiment | None, may_download: bool = True
) -> Loaded | None:
  """The teacher that a config names; None for a run without one.

  Args:
    config: of the student.
    experiment: of the student, whose classes the teacher must know; None where it has problems.
    may_download: False for a run that has problems elsewhere.

  Raises:
    UserError: it cannot be read, or does not know the classes; or there is no place for its cache.
  """
  task = tasks.of_config(config.to_json(), 2)
  name = getattr(task, 'teacher', '')
  if not name:
    return None
  if folder := getattr(task, 'teacher_cache', ''):
    try:
      make_folder(folder)
    except StorageError as e:
      raise StorageError(f'config.task.teacher_cache={folder}: {e}') from e
  if not may_download and needs_download(name, pretrained_dir=config.pretrained_dir):
    raise NotDownloadedError([])
  try:
    loaded = load(name, pretrained_dir=config.pretrained_dir)
    if not loaded.module.num_classes:
      raise ConfigError('it has no classifier')
    if experiment is not None:
      _columns(loaded, experiment)
  except UserError as e:
    raise type(e)([f'config.task.teacher={name}: {problem}' for problem in e.problems]) from e
  return loaded


def _columns(loaded: Loaded, experiment: Experiment) -> np.ndarray:
  """The teacher's outputs that are the student's classes, in their order."""
  known = loaded.classes or tuple(str(i) for i in range(loaded.module.num_classes))
  return class_names.align(experiment.dataset.classes, known)


def start(
  config: Config, experiment: Experiment, placement: Placement, loaded: Loaded | None
) -> 'Teacher | None':
  """The teacher of a run, ready to be called; None for a run without one."""
  if loaded is None:
    return None
  return Teacher(config, experiment, placement, getattr(experiment.task, 'teacher', ''), loaded)


class Teacher:
  """Logits for each training batch: computed from the images that the student sees, or cached.

  The teacher sees the student's crop, mixed as the student sees it, resized to its own input size
  and brought to its own value range. Its logits are those of the student's classes.

  Args:
    config, experiment: of the student.
    placement: where the student's step runs.
    name: of the teacher, for messages.
    loaded: the teacher.
  """

  def __init__(
    self, config: Config, experiment: Experiment, placement: Placement, name: str, loaded: Loaded
  ):
    self._placement, self._loaded = placement, loaded
    columns = _columns(loaded, experiment)
    self._compute = placement.compile_with_step(
      _logits(config, experiment, loaded, columns, placement.axis_name)
    )
    self._variables = placement.put_state(loaded.variables)
    folder = getattr(experiment.task, 'teacher_cache', '')
    self._cache = None
    if folder:
      depends = _cache_key(config, experiment, name, loaded)
      shape = config.batch_size // processes.count(), len(columns)
      self._cache = _LogitsCache(pathlib.Path(folder), depends, shape)

  @property
  def flops_per_image(self) -> int:
    """FLOPs of its forward pass; 0 where a cache is to save them."""
    if self._cache:
      return 0
    shape = (1, *self._loaded.preprocess.image_size, 3)
    return flops.forward_flops(self._loaded.module, self._loaded.variables, shape)

  def __call__(self, step: int, batch: dict, key: jax.Array) -> jax.Array:
    """Logits of a batch.

    Args:
      step: of training, 0 first.
      batch: placed, with 'image'.
      key: the run's, from which the step derives how images are mixed.

    Returns:
      [b, k], placed as the batch is.
    """
    rows = self._cache.read(step) if self._cache else None
    if rows is not None:
      return self._placement.put_batch({'teacher': rows})['teacher']
    logits = self._compute(self._variables, batch, key, np.int32(step))
    if self._cache:
      self._cache.append(step, self._placement.get_examples(logits))
    return logits


def _logits(
  config: Config,
  experiment: Experiment,
  loaded: Loaded,
  columns: np.ndarray,
  axis_name: str | None,
) -> Any:
  size = loaded.preprocess.image_size

  def logits(variables: dict, batch: dict, rng: jax.Array, step: jax.Array) -> jax.Array:
    key = step_key(rng, step, axis_name)
    images = mixed(config.mixing, experiment.task, batch, key)['image']
    if images.shape[1:3] != tuple(size):
      shape = (images.shape[0], *size, images.shape[3])
      images = jax.image.resize(images.astype(np.float32), shape, 'bicubic').clip(0, 255)
    outputs = loaded.module.apply(variables, loaded.preprocess.normalize(images), train=False)
    return loaded.task.outputs_by_name(outputs)['logits'][:, columns].astype(np.float32)

  return logits


def _cache_key(config: Config, experiment: Experiment, name: str, loaded: Loaded) -> dict[str, Any]:
  """All that cached logits depend on, and how they are written."""
  train = experiment.train
  return {
    'format': 'rows and CRC-32',
    'teacher': str(pathlib.Path(name).resolve()),
    'weights': _digest(loaded.variables),
    'classes': list(experiment.dataset.classes),
    'dataset': config.dataset.name,
    'pictures': [_identity(train, i) for i in range(len(train))],
    'transform': str(experiment.train_transform),
    'repeats': config.input.repeats,
    'mixing': dataclasses.asdict(config.mixing),
    'seed': config.seed,
    'batch_size': config.batch_size,
    'process': [processes.index(), processes.count()],
    'parallel': [config.parallel, jax.device_count()] if config.mixing else [],
  }


def _identity(examples: Examples, index: int) -> tuple:
  """An image's name and its file's size and time of change: another may have its name."""
  name, place = examples.id(index), examples.place(index)
  try:
    found = os.stat(place.path) if place else None
  except OSError:  # reading it will say
    found = None
  return (name, found.st_size, found.st_mtime_ns) if found else (name,)


class _LogitsCache:
  """Logits on disk in the order of training: for each batch of this process its rows of float32 and
  their CRC-32.

  The file's name is a digest of all that the logits depend on. Batches that an interrupted run
  wrote are used again; one that is cut short or damaged is computed again. Where the disk is full
  or cannot be written there is a warning, and no more is cached.

  Args:
    folder: where the file lies.
    depends: all that the logits depend on.
    shape: of a batch, [b, k].
  """

  def __init__(self, folder: pathlib.Path, depends: dict[str, Any], shape: tuple[int, int]):
    self._shape, self._size = shape, 4 * shape[0] * shape[1]
    name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    self._path = folder / f'teacher_{name}.f32'
    self._writable = True
    with self._unless_it_fails():
      folder.mkdir(parents=True, exist_ok=True)
      with open(self._path, 'ab'):
        pass

  @contextlib.contextmanager
  def _unless_it_fails(self) -> Iterator[None]:
    try:
      yield
    except OSError as e:
      self._writable = False
      log.warning(
        "the teacher's logits are not cached any more: cannot write %s: %s", self._path, e.strerror
      )

  def read(self, step: int) -> np.ndarray | None:
    """The rows of a step [b, k], or None where they are not there yet or damaged."""
    try:
      with open(self._path, 'rb') as file:
        file.seek(step * (self._size + _CRC_BYTES))
        found = file.read(self._size + _CRC_BYTES)
    except OSError:
      return None
    rows = found[: self._size]
    if found[self._size :] != _crc(rows):
      return None
    return np.frombuffer(rows, np.float32).reshape(self._shape)

  def append(self, step: int, rows: np.ndarray) -> None:
    """Writes the rows of a step if those of all steps before it are there."""
    data = np.ascontiguousarray(rows, np.float32).tobytes()
    start = step * (self._size + _CRC_BYTES)
    if not self._writable:
      return
    with self._unless_it_fails():
      if self._path.stat().st_size < start:
        return
      with open(self._path, 'r+b') as file:
        file.seek(start)
        file.write(data + _crc(data))


def _crc(data: bytes) -> bytes:
  return zlib.crc32(data).to_bytes(_CRC_BYTES, 'little')


def _digest(variables: Mapping) -> str:
  whole = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    whole.update(jax.tree_util.keystr(path).encode())
    whole.update(np.ascontiguousarray(leaf).tobytes())
  return whole.hexdigest()
