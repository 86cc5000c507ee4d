"""Heat maps over images, as arrays: no plotting library is needed."""

import numpy as np
from PIL import Image

# Dark to bright, in print and to color-blind readers too: eight points of the 'inferno' map
# (matplotlib, CC0).
_COLORS = np.array(
  [
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
  ],
  np.float32,
)


def scale(values: np.ndarray, outermost: float = 0.0) -> np.ndarray:
  """Stretches each map of [..., rows, columns] from 0 at its least to 1 at its greatest value.

  Args:
    values: in any range.
    outermost: percent of values at each end that are clipped, so that a few extreme patches do not
      hide the others.
  """
  low, high = np.percentile(values, [outermost, 100 - outermost], axis=(-2, -1), keepdims=True)
  return np.clip((values - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)


def colormap(values: np.ndarray) -> np.ndarray:
  """Colors of values from 0 (black) over red to 1 (bright yellow): uint8 [..., 3]."""
  places = np.clip(values, 0.0, 1.0) * (len(_COLORS) - 1)
  points = np.arange(len(_COLORS))
  channels = [np.interp(places, points, _COLORS[:, c]) for c in range(3)]
  return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def enlarge(values: np.ndarray, size: tuple[int, int], smooth: bool = True) -> np.ndarray:
  """Resizes a map to an image.

  Args:
    values: [rows, columns].
    size: (height, width).
    smooth: bilinear between the centres of patches; otherwise every patch is one flat tile.

  Returns:
    float32 [height, width].
  """
  method = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
  pil_image = Image.fromarray(np.asarray(values, np.float32))
  return np.asarray(pil_image.resize((size[1], size[0]), method))


def overlay(
  image: np.ndarray, values: np.ndarray, opacity: float = 0.85, smooth: bool = True
) -> np.ndarray:
  """A map in colors over an image in greys, which show through where the map is low.

  Args:
    image: uint8 [h, w, c], c 1 or 3.
    values: [rows, columns], in any range: stretched from its least to its greatest value.
    opacity: of the colors at the greatest value, 0 to 1; a quarter of it at the least.
    smooth: as in `enlarge`.

  Returns:
    uint8 [h, w, 3].
  """
  grey = image.astype(np.float32)
  if image.shape[-1] == 3:
    grey = grey @ np.array([[0.299], [0.587], [0.114]], np.float32)
  heat = enlarge(scale(values), image.shape[:2], smooth)
  weight = opacity * (0.25 + 0.75 * heat[..., None])
  return np.rint((1.0 - weight) * grey + weight * colormap(heat)).astype(np.uint8)
