"""Convolutions and their padding, with and without standardised kernels."""

import flax.linen as nn
import jax
import jax.numpy as jnp

he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class StdConv(nn.Module):
  """A convolution whose kernel is standardised over height, width and input channels.

  Args:
    features: output channels.
    kernel_size: side of the kernel.
    stride: in pixels, the same both ways.
    padding: 'SAME' (as TensorFlow: more at the end) or 'SYMMETRIC' (k // 2 on either side).
    epsilon: added to the kernel's deviation, or to its variance with `epsilon_in_variance`.
    epsilon_in_variance: as in BiT; the hybrids add it outside the root.
    dtype: of the computation.

  Source: Qiao et al. 2019 (1903.10520).
  """

  features: int
  kernel_size: int
  stride: int = 1
  padding: str = 'SAME'
  epsilon: float = 1e-5
  epsilon_in_variance: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    k = self.kernel_size
    init = nn.initializers.lecun_normal()
    kernel = self.param('kernel', init, (k, k, x.shape[-1], self.features))
    kernel = self._standardise(kernel)
    return convolve(x, kernel, self.stride, self.padding, self.dtype)

  def _standardise(self, kernel: jax.Array) -> jax.Array:
    kernel = kernel - kernel.mean(axis=(0, 1, 2))
    variance = jnp.square(kernel).mean(axis=(0, 1, 2))
    if self.epsilon_in_variance:
      return kernel * jax.lax.rsqrt(variance + self.epsilon)
    return kernel / (jnp.sqrt(variance) + self.epsilon)


def convolve(
  x: jax.Array, kernel: jax.Array, stride: int, padding: str, dtype: str, groups: int = 1
) -> jax.Array:
  """Convolves [b, h, w, c] with [k, k, c / groups, d]."""
  return jax.lax.conv_general_dilated(
    x.astype(jnp.dtype(dtype)),
    kernel.astype(jnp.dtype(dtype)),
    (stride, stride),
    pads(kernel.shape[0], padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def pads(k: int, padding: str):
  """The padding of a square window of side k: 'SAME', or 'SYMMETRIC' with k // 2 on each side."""
  if padding == 'SAME':
    return 'SAME'
  return ((k // 2, k // 2), (k // 2, k // 2))
