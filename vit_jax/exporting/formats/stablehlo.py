"""'stablehlo': what `jax.export` serializes, run by JAX and by whatever reads StableHLO."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.errors import DependencyError, WeightsError, one_line
from vit_jax.exporting.base import EXPORTS, ExportFormat, Run, Settings, platform, program_of
from vit_jax.files import writing

if TYPE_CHECKING:
  from vit_jax.inference.loaded import Loaded

FILE = 'model.stablehlo'
_MOST_BYTES = (1 << 31) - (1 << 24)  # the container's offsets have 32 bits and a sign


@EXPORTS.register('stablehlo')
class StableHlo(ExportFormat):
  """One file: the program for all platforms, with the weights as constants."""

  def write(
    self, folder: pathlib.Path, loaded: 'Loaded', settings: Settings
  ) -> tuple[list[str], dict[str, Any]]:
    import jax
    from jax import export

    _check_flatbuffers()
    size = sum(x.nbytes for x in jax.tree.leaves(loaded.variables))
    if size > _MOST_BYTES:
      raise WeightsError(
        f'the weights are {size / 2**30:.1f} GiB, and a serialized program of JAX holds less than '
        '2: export a smaller model'
      )
    batch = settings.batch_size or export.symbolic_shape('b')[0]
    shape = (batch, *loaded.preprocess.image_size, loaded.preprocess.input_channels)
    images = jax.ShapeDtypeStruct(shape, settings.input_dtype)
    program = jax.jit(program_of(loaded))
    try:
      exported = export.export(program, platforms=settings.platforms)(images)
    except Exception as e:  # of a model from a plugin, whose type of error nobody knows
      fixed = '' if settings.batch_size else '; try a fixed one: --batch_size=1'
      wanted = f'images {tuple(map(str, shape))}'
      raise WeightsError(
        f'{loaded.config["model"]["name"]} cannot be exported for {wanted}{fixed} '
        f'({type(e).__name__}: {one_line(e)[:300]})'
      ) from e
    with writing(folder / FILE):
      (folder / FILE).write_bytes(exported.serialize())
    version = exported.calling_convention_version
    return [FILE], {'calling_convention_version': version}

  def open(self, folder: pathlib.Path, record: Mapping[str, Any]) -> Run:
    import jax
    import numpy as np
    from jax import export

    _check_flatbuffers()
    path = folder / FILE
    try:
      exported = export.deserialize(bytearray(path.read_bytes()))
    except Exception as e:  # of whatever type: made by another version, or damaged
      made = record.get('versions', {}).get('jax', 'another version')
      raise DependencyError(
        f'{path} cannot be read by JAX {jax.__version__}; it was written by {made} '
        f'({type(e).__name__}: {one_line(e)[:300]})'
      ) from e
    here = platform()
    if here not in exported.platforms:
      raise DependencyError(
        f'{path} is for {", ".join(exported.platforms)}, and JAX computes on {here} here: export '
        f'it with --platforms={",".join([*exported.platforms, here])}'
      )
    call = jax.jit(exported.call)
    return lambda images: {k: np.asarray(v) for k, v in call(images).items()}

  def script(self) -> tuple[list[str], list[str], list[str]]:
    lines = [
      f"model = export.deserialize(bytearray((folder / '{FILE}').read_bytes()))",
      'predict = jax.jit(model.call)  # compiles once for each number of images',
    ]
    return ['jax', 'flatbuffers'], ['import jax', 'from jax import export'], lines


def _check_flatbuffers() -> None:
  """Raises a `DependencyError` where the package is missing that JAX serializes programs with."""
  try:
    import flatbuffers  # noqa: F401
  except ImportError:
    raise DependencyError(
      'exported programs are read and written by flatbuffers: pip install flatbuffers'
    ) from None
