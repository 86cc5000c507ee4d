"""Measuring a model on this machine: training, inference, memory, and how fast images are read."""

import os
import pathlib
import tempfile
import time
from typing import Any

PARTS = ('train', 'infer', 'input')


def measure(
  name: str,
  parts: tuple[str, ...] = PARTS,
  *,
  batch_size: int = 16,
  image_size: int = 224,
  classes: int = 1000,
  steps: int = 8,
  dataset: str = '',
  fields: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Measures one model; the keys say the units.

  Args:
    name: of the model.
    parts: which of PARTS.
    batch_size: global.
    image_size: pixels.
    classes: outputs of the head.
    steps: timed steps.
    dataset: images to read; '' for synthetic ones.
    fields: of the model.

  Raises:
    UserError: no such model, field or dataset.
  """
  import jax

  from vit_jax import machine, models, runtime
  from vit_jax.training import flops

  runtime.prepare_jax()
  module = models.build(name, classes, **(fields or {}))
  models.check_image_size(module, (image_size, image_size))
  device = jax.devices()[0]
  found = flops.peak(device.device_kind, module.dtype)
  row: dict[str, Any] = {
    'model': name,
    'batch_size': batch_size,
    'image_size': image_size,
    'fields': fields or {},
    'device': device.device_kind,
    'cores': machine.cores(),
    'runtime': runtime.describe(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'jax': jax.__version__,
    'peak_tflops': found and found[0] / 1e12,
    'peak_source': found and found[1],
  }
  if 'train' in parts or 'infer' in parts:
    row |= _measure_model(module, parts, batch_size, image_size, classes, steps, found)
    row['runtime']['libraries'] = row.pop('libraries')
  if 'input' in parts:
    row |= _measure_input(dataset, batch_size, image_size, steps)
  if peak := machine.peak_memory_bytes():
    row['host_memory_peak_mib'] = peak / 2**20
  stats = device.memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    row['device_memory_peak_mib'] = stats['peak_bytes_in_use'] / 2**20
  return row


def _measure_model(
  module: Any,
  parts: tuple[str, ...],
  batch_size: int,
  image_size: int,
  classes: int,
  steps: int,
  peak: tuple[float, str] | None,
) -> dict[str, Any]:
  import jax
  import numpy as np

  from vit_jax import kernels, rng
  from vit_jax.data import Preprocess
  from vit_jax.training import flops, timing

  shape = (image_size, image_size, 3)
  zeros = np.zeros((1, *shape), np.float32)
  variables = jax.jit(module.init, static_argnames='train')(
    rng.stream(0, 'params'), zeros, train=False
  )
  random = np.random.default_rng(0)
  batch = jax.device_put(
    {
      'image': random.integers(0, 256, (batch_size, *shape), np.uint8),
      'label': random.integers(0, classes, batch_size),
    }
  )
  per_image = flops.forward_flops(module, variables, (1, *shape))
  row = {
    'forward_gflop_per_image': per_image / 1e9,
    'parameters': sum(x.size for x in jax.tree.leaves(variables['params'])),
  }
  timed = []
  if 'infer' in parts:
    preprocess = Preprocess('decode')
    compute = kernels.jit(lambda v, x: module.apply(v, preprocess.normalize(x), train=False))
    first, seconds = _times(lambda: compute(variables, batch['image']), steps)
    row |= _rates('infer', first, seconds, batch_size, per_image, peak)
    timed.append(compute)
  if 'train' in parts:
    step, state = training_step(module, variables, classes)
    key = rng.stream(0, 'dropout')
    shapes = jax.eval_shape(lambda: variables)
    del variables

    def update():
      nonlocal state
      state, metrics = step(state, batch, key)
      return state, metrics

    first, seconds = _times(update, steps, timing.CpuStepThrottle(jax.devices()[:1]))
    needed = flops.training_flops(module, shapes, (1, *shape))
    row['training_gflop_per_image'] = needed / 1e9
    row |= _rates('train', first, seconds, batch_size, needed, peak)
    timed.append(step)
  return row | {'libraries': kernels.describe(*timed)}


def training_step(module: Any, variables: Any, classes: int) -> tuple[Any, Any]:
  """The step that training takes, classifying with AdamW.

  Args:
    module: the model.
    variables: its own.
    classes: outputs of its head.

  Returns:
    The jitted (state, batch, key) -> (state, metrics), which reuses the old state's memory, and the
    state to begin with. A batch has 'image' uint8 [b, h, w, 3] and 'label' [b].
  """
  import jax
  import jax.numpy as jnp

  from vit_jax import kernels, optimizers, tasks
  from vit_jax.data import Preprocess
  from vit_jax.training import train_state, train_step

  peak = 1e-4

  def rate(step: jax.Array) -> jax.Array:
    return jnp.float32(peak)

  rule = optimizers.build('adamw', {})
  factors = optimizers.parameter_factors(variables['params'])
  tx = optimizers.make_optimizer(rule, rate, factors)
  bounded = optimizers.is_bounded(rule, peak, factors, weight_decay=0.0)
  step = train_step.make_train_step(
    module,
    tasks.build('classify', classes),
    tx,
    rate,
    Preprocess('decode'),
    bounded=bounded and jax.default_backend() == 'cpu',
  )
  return kernels.jit(step, donate_argnums=0), train_state.create(variables, tx)


def _times(call: Any, steps: int, throttle: Any = None) -> tuple[float, list[float]]:
  """Seconds of the first call, and of `steps` calls after it; pauses as training does, if given."""
  import jax

  seconds = []
  for _ in range(steps + 1):
    began = time.perf_counter()
    outputs = jax.block_until_ready(call())
    if throttle:
      throttle.after(outputs)
    seconds.append(time.perf_counter() - began)
  return seconds[0], seconds[1:]


def _rates(
  part: str,
  first: float,
  seconds: list[float],
  batch_size: int,
  per_image: float,
  peak: tuple[float, str] | None,
) -> dict[str, float]:
  import numpy as np

  rate = batch_size / float(np.median(seconds))
  row = {
    f'{part}_img_sec': rate,
    f'{part}_first_step_s': first,
    f'{part}_step_s': float(np.median(seconds)),
    f'{part}_step_best_s': min(seconds),
  }
  if peak:
    row[f'{part}_mfu'] = rate * per_image / peak[0]
  return row


def _measure_input(dataset: str, batch_size: int, image_size: int, steps: int) -> dict[str, float]:
  from vit_jax import data

  with tempfile.TemporaryDirectory(prefix='vit_jax_bench_') as folder:
    if not dataset:
      make_images(pathlib.Path(folder), 2 * batch_size)
    examples = data.open_dataset(dataset or folder, split_fractions=(1.0, 0.0, 0.0)).split('train')
    size = (image_size, image_size)
    transform = data.parse_transform('decode|inception_crop|flip_lr', size, train=True)
    batches = data.train_batches(examples, transform, batch_size=batch_size, seed=0)
    try:
      for _ in range(2):
        next(batches)
      began = time.perf_counter()
      count = max(steps, 256 // batch_size)
      for _ in range(count):
        next(batches)
      seconds = time.perf_counter() - began
    finally:
      batches.close()
  return {'input_img_sec': count * batch_size / seconds}


def make_images(folder: pathlib.Path, count: int) -> None:
  """Writes JPEGs of 500 x 375 pixels, smooth with some grain, as photographs are."""
  import numpy as np
  from PIL import Image

  random = np.random.default_rng(0)
  for i in range(count):
    coarse = random.integers(0, 256, (24, 32, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
    grainy = image + random.normal(0, 6, image.shape)
    (folder / f'class{i % 2}').mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(
      folder / f'class{i % 2}' / f'{i:04d}.jpg', quality=90
    )
