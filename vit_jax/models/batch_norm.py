"""BatchNorm with a gradient of its own: three passes over the activations instead of five."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

_AXES = (0, 1, 2)


class BatchNorm(nn.Module):
  """Normalises each channel by its mean and variance over the batch, height and width.

  Parameters, running statistics and values are those of `flax.linen.BatchNorm`. Statistics are
  float32 whatever `dtype` is.

  Args:
    use_running_average: normalise by the running statistics and keep them as they are.
    momentum: share of the old running statistics kept at each step.
    epsilon: added to the variance.
    axis_name: mapped axis over which the statistics are averaged; None for no axis.
    dtype: of the result.
    scale_init: how the scale starts.

  Source: Ioffe and Szegedy 2015 (1502.03167), section 3.
  """

  use_running_average: bool
  momentum: float = 0.9
  epsilon: float = 1e-5
  axis_name: str | None = None
  dtype: jnp.dtype = jnp.dtype('float32')
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1],)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape)
    variance = self.variable('batch_stats', 'var', jnp.ones, shape)
    scale = self.param('scale', self.scale_init, shape)
    bias = self.param('bias', nn.initializers.zeros, shape)
    if self.use_running_average:
      y = _scaled(x, mean.value, variance.value, scale, bias, self.epsilon)
      return y.astype(self.dtype)
    axis_name = None if self.is_initializing() else self.axis_name
    y, now = _normalised(x, scale, bias, self.epsilon, axis_name, self.dtype)
    if not self.is_initializing():
      for running, of_batch in zip((mean, variance), now, strict=True):
        running.value = self.momentum * running.value + (1 - self.momentum) * of_batch
    return y


def _scaled(x, mean, variance, scale, bias, epsilon: float) -> jax.Array:
  return (x - mean) * (jax.lax.rsqrt(variance + epsilon) * scale) + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalised(x, scale, bias, epsilon: float, axis_name: str | None, dtype: jnp.dtype):
  """x normalised by its own statistics, and these: (mean, variance), which have no gradient."""
  return _forward(x, scale, bias, epsilon, axis_name, dtype)[0]


def _forward(x, scale, bias, epsilon, axis_name, dtype):
  wide = x.astype(jnp.float32)
  mean, square = _averaged((wide.mean(_AXES), jnp.square(wide).mean(_AXES)), axis_name)
  variance = jnp.maximum(0.0, square - jnp.square(mean))  # rounding may take it below zero
  y = _scaled(wide, mean, variance, scale, bias, epsilon).astype(dtype)
  return (y, (mean, variance)), (x, scale, mean, jax.lax.rsqrt(variance + epsilon))


def _backward(epsilon, axis_name, dtype, saved, gradients):
  """With z = (x - mean) / deviation: dx = scale / deviation (dy - mean(dy) - z mean(z dy))."""
  x, scale, mean, inverse = saved
  dy = gradients[0].astype(jnp.float32)
  centred = x.astype(jnp.float32) - mean
  count = x.size // x.shape[-1]
  dbias, dscale = dy.sum(_AXES), (dy * centred).sum(_AXES) * inverse
  offset, slope = _averaged((dbias / count, dscale / count), axis_name)
  dx = (scale * inverse) * (dy - offset - centred * (inverse * slope))
  return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


_normalised.defvjp(_forward, _backward)


def _averaged(pair: tuple[jax.Array, jax.Array], axis_name: str | None):
  return pair if axis_name is None else jax.lax.pmean(pair, axis_name)
