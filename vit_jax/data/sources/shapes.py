"""The embedded shapes: drawn images of 64 by 64 pixels, one object each, with its class and box."""

import functools

import numpy as np

from vit_jax.data.records import ArrayRecords, Source

CLASSES = ('cross', 'disc', 'ring', 'square', 'star', 'triangle')
_PER_CLASS = {'train': 120, 'val': 20, 'test': 40}
_SEED = 0  # the images never vary, so that results on them can be compared
_SIDE = 64
_FINE = 2 * _SIDE  # drawn at twice the size, for smooth edges
_LIGHT, _DARK = (130.0, 250.0), (10.0, 110.0)  # of the colours of object and ground
_NOISE = 8.0  # standard deviation, of 0 to 255
_GRID = (np.mgrid[:_FINE, :_FINE] + 0.5) / _FINE  # y and x of the fine pixels [2, h, w]


@functools.cache
def shapes_source() -> Source:
  """Colour images `[64, 64, 3]`, 720, 120 and 240, each of one object on a shaded, noisy ground."""
  rng = np.random.default_rng(_SEED)
  records = {}
  for split, count in _PER_CLASS.items():
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int32), count)
    drawn = [_draw(CLASSES[label], rng) for label in labels]
    extra = {
      'box': np.stack([box for _, box in drawn]),
      'has_box': np.ones(len(labels), bool),
    }
    images = np.stack([image for image, _ in drawn])
    records[split] = ArrayRecords(images, labels.tolist(), f'shapes/{split}', extra)
  return Source('shapes', CLASSES, records)


def _draw(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """An image uint8 [64, 64, 3] and its object's box [4]: centre x, centre y, width, height."""
  radius = rng.uniform(0.22, 0.42)
  x, y = rng.uniform(1.07 * radius, 1.0 - 1.07 * radius, 2)
  turned = rng.uniform(-0.35, 0.35)  # radians
  rows, columns = _GRID
  u, v = (columns - x) / radius, (y - rows) / radius
  u, v = u * np.cos(turned) + v * np.sin(turned), v * np.cos(turned) - u * np.sin(turned)
  covered = _INSIDE[name](u, v)
  found = [np.flatnonzero(covered.any(axis=axis)) for axis in (0, 1)]
  (left, right), (top, bottom) = ((f[0] / _FINE, (f[-1] + 1) / _FINE) for f in found)
  box = np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], np.float32)
  share = covered.reshape(_SIDE, 2, _SIDE, 2).mean(axis=(1, 3))[..., None]
  color, ground = _colors(rng)
  toward = rng.uniform(0, 2 * np.pi)
  slope = (columns - 0.5) * np.cos(toward) + (rows - 0.5) * np.sin(toward)
  shade = (0.5 + 0.7 * slope)[::2, ::2, None]
  image = share * color + (1 - share) * (ground[0] + (ground[1] - ground[0]) * shade)
  image += rng.normal(0.0, _NOISE, image.shape)
  return np.clip(np.rint(image), 0, 255).astype(np.uint8), box


def _colors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """A light colour [3], and two dark ones [2, 3] of the ground."""
  return rng.uniform(*_LIGHT, 3), rng.uniform(*_DARK, (2, 3))


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
  """Five tips on the unit circle; between them the outline comes to 0.45 of it."""
  part = np.pi / 5
  angle = np.abs((np.arctan2(u, v) + part) % (2 * part) - part)  # from the nearest tip
  r = np.hypot(u, v)
  along, aside = r * np.cos(angle), r * np.sin(angle)
  inner = 0.45 * np.cos(part), 0.45 * np.sin(part)
  return (along - 1.0) * inner[1] <= aside * (inner[0] - 1.0)


# Whether points lie in a shape, which reaches to the unit circle.
_INSIDE = {
  'cross': lambda u, v: (np.minimum(abs(u), abs(v)) <= 0.3) & (np.maximum(abs(u), abs(v)) <= 1.0),
  'disc': lambda u, v: np.hypot(u, v) <= 1.0,
  'ring': lambda u, v: (np.hypot(u, v) <= 1.0) & (np.hypot(u, v) >= 0.55),
  'square': lambda u, v: np.maximum(abs(u), abs(v)) <= 0.75,
  'star': _star,
  'triangle': lambda u, v: (v >= -0.5) & (np.sqrt(3.0) * abs(u) + v <= 1.0),
}
