"""Times convolutions on CPU in XLA's form and in ours: alternating calls, medians, ratios.

  python benchmarks/convolutions.py --rounds=15

Shapes are those of MobileNetV2 and ResNet-50 at 224 pixels. A gradient is that of the images and of
the kernel together, as a training step needs both.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import runtime
from vit_jax.models import convs

# Side, channels, features, kernel's side, stride.
DEPTHWISE = (
  (112, 32, 32, 3, 1),
  (112, 96, 96, 3, 2),
  (56, 144, 144, 3, 1),
  (24, 144, 144, 3, 1),
  (14, 576, 576, 3, 1),
  (7, 960, 960, 3, 1),
)
DENSE = (
  (112, 16, 96, 1, 1),
  (56, 64, 256, 1, 1),
  (14, 1024, 256, 1, 1),
  (56, 256, 512, 1, 2),
  (56, 64, 64, 3, 1),
  (28, 128, 128, 3, 1),
  (14, 256, 256, 3, 1),
  (24, 64, 64, 3, 1),
  (12, 128, 128, 3, 1),
)


def _xla(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(kernel.shape[0] // 2,) * 2] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] // kernel.shape[2],
  )


def _ours(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  return convs.convolve(x, kernel, stride, 'symmetric')


def _gradients(form: Callable, x: jax.Array, kernel: jax.Array, dy: jax.Array):
  return jax.vjp(form, x, kernel)[1](dy)


def _medians(forms: Mapping[str, Callable], arrays: tuple, rounds: int) -> dict[str, float]:
  """Milliseconds of a call, by form."""
  seconds = {name: [] for name in forms}
  for i in range(rounds + 1):
    for name, form in forms.items():
      began = time.perf_counter()
      jax.block_until_ready(form(*arrays))
      if i:  # the first compiles
        seconds[name].append(time.perf_counter() - began)
  return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def main() -> None:
  """Prints milliseconds and ratios."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--batch_size', type=int, default=16)
  args = parser.parse_args()
  runtime.start()
  runtime.prepare_jax()
  draw = np.random.default_rng(0)
  print(
    'side  channels  features  kernel  stride   forward: XLA, ours    gradients: XLA, ours (ms)'
  )
  for shape in DEPTHWISE + DENSE:
    side, channels, features, size, stride = shape
    x = jnp.asarray(draw.standard_normal((args.batch_size, side, side, channels)), jnp.float32)
    depth = 1 if shape in DEPTHWISE else channels
    kernel = jnp.asarray(draw.standard_normal((size, size, depth, features)), jnp.float32)
    forms = {
      name: jax.jit(functools.partial(f, stride=stride))
      for name, f in (('xla', _xla), ('ours', _ours))
    }
    dy = forms['xla'](x, kernel)
    gradients = {name: jax.jit(functools.partial(_gradients, f)) for name, f in forms.items()}
    ms = [
      _medians(forms, (x, kernel), args.rounds),
      _medians(gradients, (x, kernel, dy), args.rounds),
    ]
    words = [f'{m["xla"]:8.1f} {m["ours"]:7.1f} ({m["xla"] / m["ours"]:4.1f}x)' for m in ms]
    print(f'{side:4}{channels:10}{features:10}{size:8}{stride:8}  ' + '  '.join(words), flush=True)


if __name__ == '__main__':
  main()
