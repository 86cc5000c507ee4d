"""Mixup and CutMix on the device: each picture is mixed with its mirror in the batch."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Mixing:
  """How pictures of a batch are mixed, two by two: the first with the last, and so on.

  Attributes:
    mixup: a of Beta(a, a), from which the share of a picture in a blend is drawn; 0: no blending.
    cutmix: a of Beta(a, a), from which the area kept in a collage is drawn; 0: no collages.
    switch: where both are on, the chance of a collage.
    probability: the chance of mixing at all.
    per_pair: draws anew for every pair of pictures; otherwise once a batch.

  Sources: Zhang et al., 1710.09412, section 2; Yun et al., 1905.04899, section 3.1; switching as in
  DeiT, 2012.12877, section 6.
  """

  mixup: float = 0.0
  cutmix: float = 0.0
  switch: float = 0.5
  probability: float = 1.0
  per_pair: bool = False

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
    blend = self._kept(draw[1], b, self.mixup)  # [b], share of the picture's own
    keep = self._kept(draw[2], b, self.cutmix)
    center = jnp.stack([self._pairwise(k, b) for k in draw[3:5]])
    pasted = paste_mask(keep, center, (h, w))  # [b, h, w], 1 where the other picture lies
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
    """One number for all [b], or one for each pair, the same for both of its pictures."""
    if not self.per_pair:
      return jnp.broadcast_to(draw(key, ()), (b,))
    index = jnp.arange(b)
    return draw(key, (b,))[jnp.minimum(index, index[::-1])]


def paste_mask(keep: jax.Array, center: jax.Array, size_hw: tuple[int, int]) -> jax.Array:
  """Boxes of the picture's shape that cover 1 - keep of its area before they are cut at the border.

  Args:
    keep: share of the picture left [b].
    center: of the box, as shares of height and width [2, b].
    size_hw: of the picture, pixels.

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
