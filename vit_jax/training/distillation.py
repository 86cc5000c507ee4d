"""A trained model that answers training batches, and the folder that keeps its answers."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from vit_jax.data import class_names
from vit_jax.errors import UserError
from vit_jax.inference.loaded import Loaded
from vit_jax.models.heads import by_name
from vit_jax.parallel import DataPlacement, PmapPlacement
from vit_jax.training import train_step
from vit_jax.training.experiment import Prepared


def start(run: Prepared, placement: DataPlacement | PmapPlacement) -> 'Teacher | None':
  """The teacher of a run, ready to answer; None for a run that has none.

  Raises:
    UserError: it does not know the run's classes, or its answers cannot be kept.
  """
  return Teacher(run, placement) if run.teacher else None


class Teacher:
  """Logits for each training batch: computed from the pictures that the student sees, or read.

  The teacher sees the student's crop, mixed as the student sees it, resized to its own input size
  and brought to its own value range. Its answers are those for the student's classes.

  Args:
    run: with the teacher's model.
    placement: where the student's step runs.
  """

  def __init__(self, run: Prepared, placement: DataPlacement | PmapPlacement):
    self._placement = placement
    loaded = run.teacher
    if not loaded.module.num_classes:
      raise UserError(f'config.task.teacher={run.config.task.teacher} has no classifier')
    known = loaded.classes or tuple(str(i) for i in range(loaded.module.num_classes))
    try:
      columns = class_names.align(run.dataset.classes, known)
    except UserError as e:
      raise UserError(f'config.task.teacher={run.config.task.teacher}: {e}') from e
    self._compute = placement.compile_with_step(_answers(run, loaded, columns, placement.axis_name))
    self._variables = placement.put_state(loaded.variables)
    self._kept = _Kept(run, len(columns)) if run.config.task.teacher_cache else None

  def __call__(self, step: int, batch: dict, key: jax.Array) -> jax.Array:
    """Logits of a batch.

    Args:
      step: of training, 0 first.
      batch: placed, with 'image'.
      key: the run's, from which the step derives how pictures are mixed.

    Returns:
      [b, k], placed as the batch is.
    """
    rows = self._kept.read(step) if self._kept else None
    if rows is not None:
      return self._placement.put_batch({'teacher': rows})['teacher']
    logits = self._compute(self._variables, batch, key, np.int32(step))
    if self._kept:
      self._kept.append(step, self._placement.get_examples(logits))
    return logits


def _answers(run: Prepared, loaded: Loaded, columns: np.ndarray, axis_name: str | None) -> Any:
  size = loaded.preprocess.image_size

  def answers(variables: dict, batch: dict, rng: jax.Array, step: jax.Array) -> jax.Array:
    key = train_step.step_key(rng, step, axis_name)
    images = train_step.mixed(run.mixing, run.task, batch, key)['image']
    if images.shape[1:3] != tuple(size):
      shape = (images.shape[0], *size, images.shape[3])
      images = jax.image.resize(images.astype(np.float32), shape, 'bicubic').clip(0, 255)
    outputs = loaded.module.apply(variables, loaded.preprocess.normalize(images), train=False)
    return by_name(outputs)['logits'][:, columns].astype(np.float32)

  return answers


class _Kept:
  """Answers on disk in the order of training: one row of float32 a picture of this process.

  The file's name stands for all that the answers depend on. Rows that an interrupted run left are
  used again; whole batches alone count.
  """

  def __init__(self, run: Prepared, num_classes: int):
    config = run.config
    self._shape = config.batch_size // jax.process_count(), num_classes
    depends = {
      'teacher': str(pathlib.Path(config.task.teacher).resolve()),
      'weights': _digest(run.teacher.variables),
      'classes': list(run.dataset.classes),
      'pictures': [run.train.id(i) for i in range(len(run.train))],
      'transform': str(run.train_transform),
      'repeats': config.input.repeats,
      'mixing': dataclasses.asdict(config.mixing),
      'seed': config.seed,
      'batch_size': config.batch_size,
      'process': [jax.process_index(), jax.process_count()],
      'parallel': [config.parallel, jax.device_count()] if run.mixing else [],
    }
    name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
    folder = pathlib.Path(config.task.teacher_cache)
    self._path = folder / f'teacher_{name}.f32'
    try:
      folder.mkdir(parents=True, exist_ok=True)
      self._path.touch()
    except OSError as e:
      raise UserError(f'cannot keep answers in config.task.teacher_cache={folder}: {e}') from e

  def read(self, step: int) -> np.ndarray | None:
    """The rows of a step [b, k], or None where they are not there yet."""
    size = 4 * self._shape[0] * self._shape[1]
    with open(self._path, 'rb') as file:
      file.seek(step * size)
      found = file.read(size)
    return np.frombuffer(found, np.float32).reshape(self._shape) if len(found) == size else None

  def append(self, step: int, rows: np.ndarray) -> None:
    """Keeps the rows of a step if all before it are there."""
    rows = np.ascontiguousarray(rows, np.float32)
    if self._path.stat().st_size < step * rows.nbytes:
      return
    try:
      with open(self._path, 'r+b') as file:
        file.seek(step * rows.nbytes)
        file.write(rows.tobytes())
    except OSError as e:
      raise UserError(f"cannot keep the teacher's answers in {self._path}: {e.strerror}") from e


def _digest(variables: dict) -> str:
  whole = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    whole.update(jax.tree_util.keystr(path).encode())
    whole.update(np.ascontiguousarray(leaf).tobytes())
  return whole.hexdigest()
