"""The evaluation transform in words and as lines of Python on Pillow images."""

import dataclasses
from collections.abc import Callable
from typing import Any

from vit_jax.data.preprocess import Preprocess
from vit_jax.data.transforms import spatial
from vit_jax.data.transforms.base import Op
from vit_jax.data.transforms.parse import parse_transform
from vit_jax.errors import WeightsError


@dataclasses.dataclass(frozen=True)
class Step:
  """One step from a file to the model's input.

  Args:
    words: what is done.
    lines: Python that changes `image`; a step that cuts ends by `edges`, left, top, right and
      bottom in pixels.
    cuts: whether `image.crop(edges)` follows, black where the edges lie outside.
  """

  words: str
  lines: tuple[str, ...]
  cuts: bool = False


def _resize(op: Any) -> Step:
  h, w = op.size
  line = f'image = image.resize(({w}, {h}), Image.Resampling.{op.method.upper()})'
  return Step(f'scale to {w} x {h} pixels, {op.method}', (line,))


def _scale(function: str) -> Callable[[Any], Step]:
  def step(op: Any) -> Step:
    side = {'min': 'shorter', 'max': 'longer'}[function]
    lines = (
      f'side = {function}(image.size)',
      f'size = tuple(max(1, {op.size} * s // side) for s in image.size)',
      f'image = image.resize(size, Image.Resampling.{op.method.upper()})',
    )
    return Step(f'scale the {side} side to {op.size} pixels, {op.method}', lines)

  return step


def _central_crop(op: Any) -> Step:
  h, w = op.size
  lines = (
    f'left, top = round((image.width - {w}) / 2), round((image.height - {h}) / 2)',
    f'edges = left, top, left + {w}, top + {h}',
  )
  return Step(f'cut {w} x {h} pixels out of the middle', lines, cuts=True)


def _central_fraction(op: Any) -> Step:
  lines = (
    f'left, top = (int((s - s * {op.fraction!r}) / 2) for s in image.size)',
    'edges = left, top, image.width - left, image.height - top',
  )
  return Step(f'cut {op.fraction:g} of each side out of the middle', lines, cuts=True)


def _pad(op: Any) -> Step:
  n = op.pixels
  lines = (f'edges = -{n}, -{n}, image.width + {n}, image.height + {n}',)
  return Step(f'add {n} black pixels on every side', lines, cuts=True)


def _pad_square(op: Any) -> Step:
  lines = (
    'side = max(image.size)',
    'left, top = (-((side - s) // 2) for s in image.size)',
    'edges = left, top, left + side, top + side',
  )
  return Step('make it square and centred by black margins', lines, cuts=True)


_STEPS: dict[type[Op], Callable[[Any], Step]] = {
  spatial.Resize: _resize,
  spatial.ResizeSmall: _scale('min'),
  spatial.ResizeLong: _scale('max'),
  spatial.CentralCrop: _central_crop,
  spatial.CentralFraction: _central_fraction,
  spatial.Pad: _pad,
  spatial.PadSquare: _pad_square,
}
# They change what an image's box is said to be, or nothing that Pillow does not do itself.
_NO_STEPS = (spatial.Decode, spatial.TightenBox)


def steps(preprocess: Preprocess) -> list[Step]:
  """The steps from an open Pillow image to the pixels that the model takes.

  Raises:
    WeightsError: the transform has an operation that is not described here.
  """
  ops = parse_transform(preprocess.transform, train=False).ops
  unknown = [op.name for op in ops if type(op) not in _STEPS and not isinstance(op, _NO_STEPS)]
  if unknown:
    raise WeightsError(
      f'the evaluation transform {preprocess.transform!r} has {", ".join(unknown)}, which an '
      'export cannot describe for other programs'
    )
  mode = 'L' if preprocess.input_channels == 1 else 'RGB'
  colour = f'turn upright by its EXIF orientation, convert to {"grey" if mode == "L" else mode}'
  first = Step(colour, (f"image = ImageOps.exif_transpose(image).convert('{mode}')",))
  return [first, *(_STEPS[type(op)](op) for op in ops if type(op) in _STEPS)]
