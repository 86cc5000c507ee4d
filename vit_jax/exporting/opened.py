"""An exported folder as a model that predicts."""

import json
import pathlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.data import Preprocess
from vit_jax.errors import ConfigError, WeightsError
from vit_jax.exporting.base import EXPORTS
from vit_jax.exporting.write import CLASSES, RECORD, sha256
from vit_jax.files import read_json
from vit_jax.inference.loaded import Loaded


def is_export(path: str | pathlib.Path) -> bool:
  """Whether a path is a folder that `export` has written."""
  return (pathlib.Path(path) / RECORD).is_file()


class Exported(Loaded):
  """A model that runs as it was exported; it has no parameters and gives no features.

  Args:
    folder: that `export` has written.
    batch_size: most images that are computed at once, where the export leaves it open.

  Raises:
    UserError: a file is missing, changed, or cannot be run here.
  """

  def __init__(self, folder: str | pathlib.Path, batch_size: int = 32):
    folder = pathlib.Path(folder)
    record = read_json(folder / RECORD)
    try:
      fixed = record['input']['shape'][0]
      self._dtype, self._activation = record['input']['dtype'], record['activation']
      preprocess = Preprocess.from_json(record['preprocess'])
      module = types.SimpleNamespace(num_classes=record['num_classes'])
      config, checksums = {'model': record['model']}, dict(record['sha256'])
      format = EXPORTS[record['format']]()
    except (KeyError, TypeError, IndexError) as e:
      raise WeightsError(f'{folder / RECORD} is not what an export has: {e!r}') from e
    wrong = [name for name, digest in checksums.items() if sha256(folder / name) != digest]
    if wrong:
      raise WeightsError(
        f'{folder}: {", ".join(wrong)} is missing or was changed since the export (SHA-256): '
        'export again'
      )
    self._fixed = fixed if isinstance(fixed, int) else None
    classes = json.loads((folder / CLASSES).read_text('utf-8'))
    super().__init__(module, {}, config, classes, preprocess, self._fixed or batch_size)
    self._call = format.open(folder, record)

  @property
  def fixed_batch_size(self) -> int | None:
    return self._fixed

  @property
  def activation(self) -> str:
    return self._activation

  def _compiled(self, what: str) -> Callable:  # type: ignore[override]
    if what != 'outputs':
      raise ConfigError(f'an exported model gives predictions alone, not {what!r}')
    return self._outputs

  def _outputs(self, variables: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    found = self._call(images.astype(self._dtype))
    return {name: found[name] for name in ('logits', 'box') if name in found}
