"""FLOPs of a model and the peak of a device: both halves of MFU."""

import functools
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import kernels, tree
from vit_jax.models import convs
from vit_jax.models.heads import backbone_of, with_backbone

# Dense matmuls of half-precision operands with float32 sums, without sparsity, in TFLOP/s of a JAX
# device, which on TPU v2 and v3 is a core, half a chip. Source: the makers' data sheets.
_HALF_PEAKS = {
  'V100': 125,
  'T4': 65,
  'A100': 312,
  'A10': 125,
  'A10G': 70,
  'L4': 121,
  'L40': 181,
  'L40S': 362,
  'H100 PCIe': 756,
  'H100 NVL': 835,
  'H100': 989,
  'H200': 989,
  'B200': 2250,
  'TPU v2': 22.5,
  'TPU v3': 61.5,
  'TPU v4': 275,
  'TPU v5 lite': 197,
  'TPU v5': 459,
  'TPU v5p': 459,
  'TPU v6 lite': 918,
}
# The same of float32 operands, where that is not half as much (TF32) or, on a TPU, which rounds
# them to bfloat16, as much.
_FLOAT32_PEAKS = {'V100': 15.7, 'T4': 8.1}


def forward_flops(module: nn.Module, variables: Mapping, image_shape: tuple[int, ...]) -> int:
  """FLOPs of a forward pass's matmuls and convolutions, a multiplication and an addition each.

  The pass is traced, not computed, and counts the same on every backend, whatever form it gives
  a convolution there.

  Args:
    module: the model.
    variables: arrays or shapes.
    image_shape: [b, h, w, c].
  """
  images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
  with convs.plain():
    traced = jax.make_jaxpr(lambda v, x: module.apply(v, x, train=False))(variables, images)
  return _count(traced.jaxpr)


def training_flops(
  module: nn.Module,
  variables: Mapping,
  image_shape: tuple[int, ...],
  frozen: frozenset[str] = frozenset(),
) -> int:
  """FLOPs of a forward and backward pass: what the gradient of the trained parameters needs.

  With nothing frozen that is three forward passes (Kaplan et al., 2001.08361, section 2.1), but for
  the gradient of the images, which is not needed. What is computed again to save memory is not
  counted (PaLM, 2204.02311, appendix B), nor are gradients that frozen parameters make unnecessary:
  a linear probe takes a forward pass and the gradient of its head.

  Args:
    module: the model.
    variables: arrays or shapes.
    image_shape: [b, h, w, c].
    frozen: names of parameters that are not trained.
  """
  body = backbone_of(module)
  # A loop over blocks is traced quickly, but has gradients of all its blocks or of none.
  choices = {'remat': 'none', 'scan': not frozen}
  fields = {k: v for k, v in choices.items() if hasattr(body, k)}
  module = with_backbone(module, **fields) if fields else module
  trained, fixed = tree.split(variables['params'], frozen)
  rest = {k: v for k, v in variables.items() if k != 'params'}

  def loss(trained: dict, fixed: dict, rest: dict, images: jax.Array, key: jax.Array) -> jax.Array:
    outputs, _ = module.apply(
      {'params': tree.merge(trained, fixed), **rest},
      images,
      train=True,
      rngs={'dropout': key},
      mutable=list(rest),
    )
    return sum(leaf.sum() for leaf in jax.tree.leaves(outputs))

  images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  with convs.plain():
    traced = jax.make_jaxpr(jax.grad(loss))(trained, fixed, rest, images, key)
  return _count(traced.jaxpr)


def _count(jaxpr: Any) -> int:
  return sum(times * kernels.flops(equation) for equation, times in kernels.equations(jaxpr))


@functools.cache
def peak(kind: str, dtype: str = 'float32') -> tuple[float, str] | None:
  """The most operations a second of one device, and where the number is from.

  Args:
    kind: the device's `device_kind`; 'cpu' is measured, in a tenth of a second.
    dtype: of the operands.

  Returns:
    (operations a second, source), or None for a device that is not known. All CPU devices of a
    process share one peak.
  """
  if kind.lower() == 'cpu':
    return measured_peak(dtype), 'measured: matmul of 1024 x 1024'
  for name in sorted(_HALF_PEAKS, key=len, reverse=True):
    if re.search(rf'\b{name}\b', kind, re.IGNORECASE):  # an 'RTX A1000' is no A100
      rate = _HALF_PEAKS[name]
      if jnp.dtype(dtype).itemsize > 2 and not name.startswith('TPU'):
        rate = _FLOAT32_PEAKS.get(name, rate / 2)
      return rate * 1e12, f'data sheet of {name}'
  return None


def measured_peak(dtype: str = 'float32', n: int = 1024, repeats: int = 8) -> float:
  """Operations a second of the best of several square matmuls on the first device."""
  matmul = jax.jit(jnp.dot)
  x = jnp.asarray(np.random.default_rng(0).standard_normal((n, n)), jnp.dtype(dtype))
  jax.block_until_ready(matmul(x, x))
  seconds = []
  for _ in range(repeats):
    began = time.perf_counter()
    jax.block_until_ready(matmul(x, x))
    seconds.append(time.perf_counter() - began)
  return 2 * n**3 / min(seconds)


def mfu_of_rate(
  module: nn.Module,
  variables: Mapping,
  image_shape: tuple[int, ...],
  devices: Sequence[jax.Device],
  frozen: frozenset[str] = frozenset(),
  passes: int = 1,
  teacher: int = 0,
) -> float | None:
  """MFU of training at one image per second; None where the devices' peak is unknown.

  Args:
    module: the model.
    variables: arrays or shapes.
    image_shape: [h, w, c].
    devices: those that share a batch.
    frozen: names of parameters that are not trained.
    passes: forward and backward passes of a step: 2 with SAM.
    teacher: FLOPs of a teacher's forward pass of an image.
  """
  found = peak(devices[0].device_kind, backbone_of(module).dtype)
  if found is None:
    return None
  # The CPU devices of a process share its cores, whose peak was measured.
  on_cpu = devices[0].platform == 'cpu'
  count = len({d.process_index for d in devices}) if on_cpu else len(devices)
  needed = passes * training_flops(module, variables, (1, *image_shape), frozen) + teacher
  return needed / (found[0] * count)
