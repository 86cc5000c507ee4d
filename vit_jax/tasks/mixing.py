"""Mixup and CutMix on the device: each image is mixed with its mirror in the batch."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class Mixing:
  """How images of a batch are mixed, two by two: the first with the last, and so on.

  Sources: Zhang et al., 1710.09412, section 2; Yun et al., 1905.04899, section 3.1; switching as in
  DeiT, 2012.12877, section 6.
  """

  mixup: float = option(0.0, 'Mixup alpha of Beta(alpha, alpha); 0: never', low=0, high=1e4)
  cutmix: float = option(0.0, 'CutMix alpha of Beta(alpha, alpha); 0: never', low=0, high=1e4)
  switch: float = option(
    0.5, 'probability of CutMix instead of Mixup where both are on', low=0, high=1
  )
  probability: float = option(
    1.0, 'probability that a batch, or a pair, is mixed at all', low=0, high=1
  )
  per_pair: bool = option(False, 'draw for every pair of images, not once a batch')

  def __bool__(self) -> bool:
    return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)

  def __call__(
    self, key: jax.Array, images: jax.Array, targets: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Mixes a batch.

    Args:
      key: all draws come from it.
      images: [b, h, w, c], any linear scale.
      targets: distributions or multi-hot [b, k].

    Returns:
      Images, float32, and targets, mixed alike.
    """
    images = images.astype(jnp.float32)
    b, h, w, _ = images.shape
    draw = jax.random.split(key, 6)
    mixed = self._pairwise(draw[0], b) < self.probability
    blend = self._kept(draw[1], b, self.mixup)  # [b], share of the image's own
    keep = self._kept(draw[2], b, self.cutmix)
    center = jnp.stack([self._pairwise(k, b) for k in draw[3:5]])
    pasted = paste_mask(keep, center, (h, w))  # [b, h, w], 1 where the other image lies
    keep = 1.0 - pasted.mean(axis=(1, 2))  # the area after cutting at the border
    chance = self.switch if self.mixup and self.cutmix else float(self.cutmix > 0)
    collage = self._pairwise(draw[5], b) < chance
    share = jnp.where(mixed, jnp.where(collage, keep, blend), 1.0)  # [b]
    other = jnp.where(collage[:, None, None], pasted, (1.0 - blend)[:, None, None])
    other = jnp.where(mixed[:, None, None], other, 0.0)[..., None]
    images = images + other * (images[::-1] - images)
    return images, targets + (1.0 - share)[:, None] * (targets[::-1] - targets)

  def _kept(self, key: jax.Array, b: int, alpha: float) -> jax.Array:
    if not alpha:
      return jnp.ones(b)
    return self._pairwise(key, b, lambda key, shape: jax.random.beta(key, alpha, alpha, shape))

  def _pairwise(self, key: jax.Array, b: int, draw: Callable = jax.random.uniform) -> jax.Array:
    """One number for all [b], or one for each pair, the same for both of its images."""
    if not self.per_pair:
      return jnp.broadcast_to(draw(key, ()), (b,))
    index = jnp.arange(b)
    return draw(key, (b,))[jnp.minimum(index, index[::-1])]


def paste_mask(keep: jax.Array, center: jax.Array, size_hw: tuple[int, int]) -> jax.Array:
  """Boxes of the image's shape that cover 1 - keep of its area before they are cut at the border.

  Args:
    keep: share of the image left [b].
    center: of the box, as shares of height and width [2, b].
    size_hw: of the image, pixels.

  Returns:
    [b, h, w] float, 1 within the box.
  """
  side = jnp.sqrt(1.0 - keep)  # [b], of both sides

  def within(at, size):  # [b, size]
    half = jnp.floor(size * side) / 2
    middle = jnp.floor(at * size)
    pixels = jnp.arange(size)[None] + 0.5
    return jnp.abs(pixels - middle[:, None]) < half[:, None]

  h, w = size_hw
  rows, columns = within(center[0], h), within(center[1], w)
  return (rows[:, :, None] & columns[:, None, :]).astype(jnp.float32)
