"""GroupNorm whose sums go over each channel first, and whose gradient is written out."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

_PIXELS = (1, 2)  # axes of height and width


class GroupNorm(nn.Module):
  """Normalises each example's groups of channels by their mean and variance over all pixels.

  Parameters and values are those of `flax.linen.GroupNorm` with `use_fast_variance=False`: the
  variance takes a second pass, as one pass loses digits where activations are large. On CPU XLA is
  slow at sums over a few channels of each pixel: here it sums channels over the pixels, and few
  numbers are left to be summed over the channels of a group.

  Args:
    num_groups: groups of equally many channels.
    epsilon: added to the variance.
    dtype: of the result; statistics are float32 whatever it is.
    scale_init: how the scale starts.

  Source: Wu and He 2018 (1803.08494), section 3.
  """

  num_groups: int = 32
  epsilon: float = 1e-6
  dtype: jnp.dtype = jnp.dtype('float32')
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [b, h, w, c], of which `num_groups` has to divide c, like x."""
    shape = (x.shape[-1],)
    scale = self.param('scale', self.scale_init, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    return _normalised(x, scale, bias, self.num_groups, self.epsilon, self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalised(x, scale, bias, groups: int, epsilon: float, dtype: jnp.dtype) -> jax.Array:
  return _forward(x, scale, bias, groups, epsilon, dtype)[0]


def _forward(x, scale, bias, groups, epsilon, dtype):
  wide = x.astype(jnp.float32)
  mean = _over_groups(wide.mean(_PIXELS, keepdims=True), groups)
  variance = _over_groups(jnp.square(wide - mean).mean(_PIXELS, keepdims=True), groups)
  inverse = jax.lax.rsqrt(variance + epsilon)
  factor = inverse * scale
  return (wide * factor + (bias - mean * factor)).astype(dtype), (x, scale, mean, inverse)


def _backward(groups, epsilon, dtype, saved, gradient):
  """With z = (x - mean) / deviation and dz = scale dy, means over a group: dx = (dz - mean(dz)
  - z mean(z dz)) / deviation."""
  x, scale, mean, inverse = saved
  dy = gradient.astype(jnp.float32)
  x = jax.lax.optimization_barrier(x)  # or XLA would keep x - mean of the forward pass as well
  centred = x.astype(jnp.float32) - mean
  of_dy = dy.mean(_PIXELS, keepdims=True)
  of_product = (dy * centred).mean(_PIXELS, keepdims=True) * inverse
  offset = _over_groups(of_dy * scale, groups)
  slope = _over_groups(of_product * scale, groups)
  dx = inverse * (dy * scale - offset - centred * (inverse * slope))
  pixels = x.shape[1] * x.shape[2]
  dscale, dbias = (pixels * means.sum((0, 1, 2)) for means in (of_product, of_dy))
  return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


_normalised.defvjp(_forward, _backward)


def _over_groups(means: jax.Array, groups: int) -> jax.Array:
  """Means of channels [b, 1, 1, c] -> at each channel, the mean of its group."""
  b, c = means.shape[0], means.shape[-1]
  of_groups = means.reshape(b, 1, 1, groups, c // groups).mean(-1)
  return jnp.repeat(of_groups, c // groups, axis=-1)
