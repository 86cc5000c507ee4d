"""Convolutions, norms and pooling of the convolutional networks, and the options they share."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models import depthwise, pooling, winograd
from vit_jax.models.batch_norm import BatchNorm
from vit_jax.models.group_norm import GroupNorm
from vit_jax.models.matmul import matmul

PADDINGS = ('same', 'symmetric')

# Whether `convolve` takes XLA's form whatever the backend.
_plain = contextvars.ContextVar('plain', default=False)

he_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'truncated_normal')


@dataclasses.dataclass(frozen=True)
class ConvOptions:
  """What all convolutions and norms of a network have in common.

  Args:
    norm: 'group' (GroupNorm with 32 groups) or 'batch' (BatchNorm).
    norm_epsilon: added to the variance.
    norm_momentum: share of the old value in BatchNorm's running statistics at each step.
    norm_frozen: BatchNorm uses and keeps its running statistics in training too.
    axis_name: of the mapped axis over which BatchNorm averages its statistics; None for no axis.
    padding: 'same' (TensorFlow's: what is odd goes to the end) or 'symmetric' (k // 2 each side).
    use_bias: biases on convolutions.
    standardise: epsilon of weight standardisation; None for plain kernels.
    epsilon_in_variance: whether that epsilon is added to the variance (BiT) or to the deviation.
    dtype: of the computation; parameters are float32.
  """

  norm: str = 'batch'
  norm_epsilon: float = 1e-5
  norm_momentum: float = 0.9
  norm_frozen: bool = False
  axis_name: str | None = None
  padding: str = 'symmetric'
  use_bias: bool = False
  standardise: float | None = None
  epsilon_in_variance: bool = True
  dtype: str = 'float32'


class Conv(nn.Module):
  """A convolution of square kernels, standardised where the options say so.

  Args:
    options: shared by the network's convolutions.
    features: output channels.
    kernel_size: side of the kernel.
    stride: in pixels, the same both ways.
    depthwise: every channel on its own; the kernel is [k, k, 1, c].

  Source: weight standardisation: Qiao et al. 2019 (1903.10520).
  """

  options: ConvOptions
  features: int
  kernel_size: int
  stride: int = 1
  depthwise: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    o = self.options
    dtype = jnp.dtype(o.dtype)
    k, c = self.kernel_size, x.shape[-1]
    kernel = self.param('kernel', he_normal, (k, k, 1 if self.depthwise else c, self.features))
    if o.standardise is not None:
      kernel = _standardised(kernel, o.standardise, o.epsilon_in_variance)
    y = convolve(x.astype(dtype), kernel.astype(dtype), self.stride, o.padding)
    if o.use_bias:
      y = y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(dtype)
    return y


def _standardised(kernel: jax.Array, epsilon: float, in_variance: bool) -> jax.Array:
  """Mean 0 and variance 1 over height, width and input channels of each output channel."""
  kernel = kernel - kernel.mean(axis=(0, 1, 2))
  variance = jnp.square(kernel).mean(axis=(0, 1, 2))
  if in_variance:
    return kernel * jax.lax.rsqrt(variance + epsilon)
  return kernel * (1 / (jnp.sqrt(variance) + epsilon))  # a division of each value takes longer


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: str) -> jax.Array:
  """A convolution in the form that is fastest on the backend; the values differ by rounding only.

  On CPU a 1x1 kernel is a matmul (XLA's gradient of the convolution runs at a fifth of its rate),
  a depthwise one a sum of shifted images (XLA's convolution takes 10 to 40 times as long), and a
  3x3 one goes by Winograd's tiles (about half the time, see docs/speed.md). Everything else is
  XLA's.

  Args:
    x: [b, h, w, c].
    kernel: [k, k, c, f], or [k, k, 1, c] where every channel is convolved on its own.
    stride: in pixels, the same both ways.
    padding: as in `ConvOptions`.
  """
  k, c = kernel.shape[0], x.shape[-1]
  groups = c if kernel.shape[2] == 1 and kernel.shape[3] == c else 1
  pads = _pads(x, k, stride, padding)
  if _has_own_forms():
    if k == 1 and groups == 1:
      x = x[:, ::stride, ::stride]
      # Of rows: in four dimensions XLA transposes the gradient in memory for the kernel's.
      return matmul(x.reshape(-1, c), kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[3])
    if groups > 1:
      return depthwise.convolve(x, kernel, stride, pads)
    if k == 3 and stride == 1 and winograd.suits(x, kernel.shape[3]):
      return winograd.convolve(x, kernel)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    pads,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


@contextlib.contextmanager
def plain() -> Iterator[None]:
  """What is traced within has XLA's convolutions: for counting what a model asks for."""
  token = _plain.set(True)
  try:
    yield
  finally:
    _plain.reset(token)


def forms() -> str:
  """How `convolve` computes on this backend, for a run's plan."""
  if jax.default_backend() == 'cpu':
    return (
      "1x1 as matmuls, depthwise as sums of shifted images, 3x3 by Winograd's tiles, others by XLA"
    )
  return 'by XLA'


def _pads(x: jax.Array, k: int, stride: int, padding: str) -> depthwise.Pads:
  """Pixels before and after, of height and of width."""
  if padding == 'same':
    high, wide = jax.lax.padtype_to_pads(x.shape[1:3], (k, k), (stride, stride), 'SAME')
    return high, wide
  return (k // 2, k // 2), (k // 2, k // 2)


def norm(
  options: ConvOptions, name: str, train: bool, scale_init=nn.initializers.ones
) -> GroupNorm | BatchNorm:
  """The network's normalisation as a named submodule of the module being called."""
  o = options
  common = {
    'epsilon': o.norm_epsilon,
    'dtype': jnp.dtype(o.dtype),
    'scale_init': scale_init,
    'name': name,
  }
  if o.norm == 'group':
    return GroupNorm(32, **common)
  return BatchNorm(
    use_running_average=not train or o.norm_frozen,
    momentum=o.norm_momentum,
    axis_name=o.axis_name,
    **common,
  )


def max_pool(x: jax.Array, padding: str, fill_zero: bool = False) -> jax.Array:
  """The maximum of 3x3 windows two pixels apart.

  Args:
    x: [b, h, w, c].
    padding: as in `ConvOptions`.
    fill_zero: pads with zeros instead of nothing, which differs where x is negative (BiT).
  """
  pads = ((1, 1), (1, 1)) if fill_zero else _pads(x, 3, 2, padding)
  if _has_own_forms():
    return pooling.max_pool(x, pads, 0.0 if fill_zero else -jnp.inf)
  if fill_zero:
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    return nn.max_pool(x, (3, 3), strides=(2, 2))
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=pads)


def relu_of_sum(x: jax.Array, y: jax.Array) -> jax.Array:
  """max(x + y, 0), once for all that read it.

  XLA on CPU keeps a choice between arrays, as here, where a matmul reads it. A maximum with a
  number it would compute again for the next sum, with all the sums before it.
  """
  total = x + y
  return jnp.where(total <= 0, 0, total) if _has_own_forms() else nn.relu(total)


def _has_own_forms() -> bool:
  return jax.default_backend() == 'cpu' and not _plain.get()
