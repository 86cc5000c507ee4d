"""What an export format is, and the registry of them.

Nothing here or in `formats/` imports JAX before it is used: `--help` lists the formats.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.registry import Registry

if TYPE_CHECKING:
  import jax
  import numpy as np

  from vit_jax.inference.loaded import Loaded

EXPORTS: Registry[type['ExportFormat']] = Registry('export format', 'vit_jax.exporting.formats')

# JAX's names of what programs are compiled for.
PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
INPUT_DTYPES = ('uint8', 'float32')

# What runs a written model: images [b, h, w, c] of the input's dtype -> outputs by name.
Run = Callable[['np.ndarray'], Mapping[str, 'np.ndarray']]


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a model is exported.

  Args:
    platforms: that the program is for, of `PLATFORMS`.
    batch_size: of all calls; None for any.
    input_dtype: of the images, whose values are 0 to 255 in any case.
  """

  platforms: tuple[str, ...] = ('cpu', 'cuda', 'tpu')
  batch_size: int | None = None
  input_dtype: str = 'uint8'


class ExportFormat:
  """A kind of file that other programs run."""

  def write(
    self, folder: pathlib.Path, loaded: 'Loaded', settings: Settings
  ) -> tuple[list[str], dict[str, Any]]:
    """Writes the model.

    Args:
      folder: for its files.
      loaded: the model.
      settings: how.

    Returns:
      Names of the files, and what export.json says of this format alone.

    Raises:
      UserError: the format cannot hold this model.
    """
    raise NotImplementedError

  def open(self, folder: pathlib.Path, record: Mapping[str, Any]) -> Run:
    """What runs the files that `write` has made.

    Args:
      folder: of them.
      record: of export.json.

    Raises:
      UserError: they cannot be run here.
    """
    raise NotImplementedError

  def script(self) -> tuple[list[str], list[str], list[str]]:
    """For predict.py: packages, lines that import them, and lines that make `predict` of `folder`.

    `predict` is as `Run`, but may give arrays of another library.
    """
    raise NotImplementedError


def program_of(loaded: 'Loaded') -> Callable[['jax.Array'], dict[str, 'jax.Array']]:
  """The whole model as a function of images with values 0 to 255, for JAX to trace.

  Returns:
    From [b, h, w, c] to 'logits' [b, k], 'probabilities' [b, k] and, for a model of boxes, 'box'
    [b, 4].
  """
  from vit_jax.logits import probabilities
  from vit_jax.models.heads import backbone_of, with_backbone

  module = loaded.module
  if getattr(backbone_of(module), 'attention', '') in ('auto', 'cudnn'):
    from vit_jax.models.attention import chosen_attention

    # The fused kernel exists on one platform alone.
    body = backbone_of(module)
    chosen = chosen_attention('auto', 8, body.dtype)
    module = with_backbone(module, attention='einsum' if chosen == 'cudnn' else chosen)

  def program(images: 'jax.Array') -> dict[str, 'jax.Array']:
    pixels = loaded.preprocess.normalize(images)
    found = loaded.task.outputs_by_name(module.apply(loaded.variables, pixels, train=False))
    outputs = {'logits': found['logits']}
    outputs['probabilities'] = probabilities(found['logits'], loaded.activation)
    return outputs | {name: found[name] for name in ('box',) if name in found}

  return program


def platform() -> str:
  """What JAX computes on here, as it names platforms of exported programs."""
  import jax

  backend = jax.default_backend()
  if backend != 'gpu':
    return backend
  return 'rocm' if 'rocm' in jax.devices()[0].client.platform_version.lower() else 'cuda'
