"""Writes an exported model as a folder, which is there whole and checked, or not at all."""

import dataclasses
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax import machine
from vit_jax.console import phase
from vit_jax.errors import WeightsError
from vit_jax.exporting import readme, script
from vit_jax.exporting.base import EXPORTS, Run, Settings
from vit_jax.exporting.recipe import Step, steps
from vit_jax.files import new_folder, write_json, write_text

if TYPE_CHECKING:
  from vit_jax.inference.loaded import Loaded

RECORD = 'export.json'
CLASSES = 'classes.json'
_VERSIONS = ('vit_jax', 'jax', 'jaxlib', 'flax', 'numpy')
_IMAGES = 3  # that are compared
# Of the largest logit, or of 1 where that is smaller. Compiled with constants, XLA fuses and rounds
# otherwise; a wrong program is off by the size of the logits.
_TOLERANCE = {'float32': 1e-3, 'float16': 0.03, 'bfloat16': 0.1}


@dataclasses.dataclass(frozen=True)
class Written:
  """What was written.

  Attributes:
    files: paths.
    size: of all together, in bytes.
    difference: the largest between a logit of what was written and of the model.
    largest: the largest logit.
  """

  files: tuple[pathlib.Path, ...]
  size: int
  difference: float
  largest: float


def export(
  loaded: 'Loaded',
  out: str | pathlib.Path,
  format: str = 'stablehlo',
  settings: Settings = Settings(),
) -> Written:
  """Writes a folder that runs a model without this package, and compares the two.

  Args:
    loaded: the model, with a classifier.
    out: the folder; it must not be there yet.
    format: one of `EXPORTS`.
    settings: how.

  Raises:
    WeightsError: the model cannot be exported, or what was written computes otherwise.
    StorageError: the folder is there, or cannot be written.
  """
  loaded.check_classifier()
  chosen = EXPORTS[format]()
  described = steps(loaded.preprocess)
  with new_folder(out) as folder:
    with phase('tracing the model and writing it'):
      files, more = chosen.write(folder, loaded, settings)
    record = {'format': format, **more, **_record(loaded, settings, described)}
    with phase('comparing what was written with the model'):
      compared = _compare(chosen.open(folder, record), loaded, settings)
    record['verified'] = compared
    names = loaded.classes or [str(i) for i in range(loaded.module.num_classes)]
    write_json(folder / CLASSES, list(names))
    record['sha256'] = {name: sha256(folder / name) for name in (*files, CLASSES)}
    write_json(folder / RECORD, record)
    name = loaded.config['model']['name']
    write_text(folder / 'README.md', readme.text(name, chosen, files, record))
    write_text(folder / script.FILE, script.text(name, chosen, described, record))
    written = sorted(path.name for path in folder.iterdir())
    size = sum((folder / name).stat().st_size for name in written)
  paths = tuple(pathlib.Path(out) / name for name in written)
  return Written(paths, size, compared['largest_difference'], compared['largest_logit'])


def _record(loaded: 'Loaded', settings: Settings, described: list[Step]) -> dict[str, Any]:
  """export.json but for what the format adds."""
  k = loaded.module.num_classes
  batch = settings.batch_size or 'b'
  channels = {1: 'grey', 3: 'rgb'}[loaded.preprocess.input_channels]
  found = machine.versions()
  each = 'softmax over classes' if loaded.activation == 'softmax' else 'a sigmoid for each class'
  outputs: dict[str, Any] = {
    'logits': {'shape': [batch, k], 'dtype': 'float32', 'meaning': 'before the activation'},
    'probabilities': {'shape': [batch, k], 'dtype': 'float32', 'meaning': each},
  }
  if loaded.task.needs_boxes:
    meaning = "centre x, centre y, width, height as shares of the model's input"
    outputs['box'] = {'shape': [batch, 4], 'dtype': 'float32', 'meaning': meaning}
  return {
    'model': loaded.config['model'],
    'num_classes': k,
    'activation': loaded.activation,
    'platforms': list(settings.platforms),
    'input': {
      'shape': [batch, *loaded.preprocess.image_size, loaded.preprocess.input_channels],
      'layout': 'NHWC',
      'dtype': settings.input_dtype,
      'channels': channels,
      'value_range': [0, 255],
      'steps': [step.words for step in described],
    },
    'within_the_model': 'pixels / 255, then (x - mean) / std, in its channel order',
    'preprocess': loaded.preprocess.to_json(),
    'outputs': outputs,
    'versions': {name: found[name] for name in _VERSIONS if name in found},
  }


def sha256(path: pathlib.Path) -> str:
  """The checksum of a file; '' where it cannot be read."""
  try:
    with open(path, 'rb') as f:
      return hashlib.file_digest(f, 'sha256').hexdigest()
  except OSError:
    return ''


def _compare(run: Run, loaded: 'Loaded', settings: Settings) -> dict[str, float]:
  """The largest difference between the outputs of both, on random images.

  Raises:
    WeightsError: it is more than rounding.
  """
  shape = (*loaded.preprocess.image_size, loaded.preprocess.input_channels)
  size = settings.batch_size or _IMAGES
  count = min(size, _IMAGES)
  images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
  given = np.zeros((size, *shape), settings.input_dtype)
  given[:count] = images
  got = {name: x[:count] for name, x in run(given).items()}
  expected = loaded.outputs([{'image': image} for image in images], count)
  logits = expected['logits']
  largest = float(np.abs(logits).max())
  differences = {
    name: float(np.abs(got[name] - expected[name]).max()) for name in got if name in expected
  }
  from vit_jax.models.heads import backbone_of

  dtype = getattr(backbone_of(loaded.module), 'dtype', 'float32')
  allowed = _TOLERANCE.get(str(dtype), 0.1) * max(1.0, largest)
  wrong = {name: x for name, x in differences.items() if not x <= allowed}
  if wrong:
    words = ', '.join(f'{name} by {x:.3g}' for name, x in wrong.items())
    raise WeightsError(
      f'the exported model computes otherwise than the model: {words}, where {allowed:.3g} may be '
      'rounding; nothing was written'
    )
  return {
    'images': count,
    'largest_difference': differences['logits'],
    'largest_logit': largest,
  }
