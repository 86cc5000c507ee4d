"""What a container of arrays is, and the registry of them."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vit_jax.registry import Registry

if TYPE_CHECKING:  # `--help` lists the formats without waiting for NumPy
  import numpy as np

  from vit_jax.weights.containers.tensors import Tensors

Writer = Callable[[pathlib.Path, Mapping[str, 'np.ndarray'], Mapping[str, str]], None]


@dataclasses.dataclass(frozen=True)
class Container:
  """A kind of file that holds named arrays.

  Args:
    recognises: (path, its first 16 bytes) -> whether the file is one.
    open: reads names, shapes and types; arrays are read when they are looked up.
    endings: of its files' names.
    write: (path, arrays by name, texts by name); None where nothing here writes it.
    keeps_metadata: whether the texts are written too and come back as `Tensors.metadata`.
    folder_file: its name in a model's folder; '' where it does not occur there.
    folder_rank: of several such files in a folder, that of the lowest rank is read.
  """

  recognises: Callable[[pathlib.Path, bytes], bool]
  open: Callable[[pathlib.Path], 'Tensors']
  endings: tuple[str, ...]
  write: Writer | None = None
  keeps_metadata: bool = False
  folder_file: str = ''
  folder_rank: int = 0


CONTAINERS: Registry[Container] = Registry('container of arrays', 'vit_jax.weights.containers')
