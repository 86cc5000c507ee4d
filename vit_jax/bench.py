"""Measures training, inference and input speed of a model: `python -m vit_jax.bench MODEL...`."""

import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.files import check_new_file
from vit_jax.inference.arguments import check_model_name, fields_of
from vit_jax.options import LARGEST_SIDE

_DESCRIPTION = """\
Measures models on this machine: images/s in training (AdamW) and inference, the time to
the first step, MFU (the share of the device's matmul peak that the model's own arithmetic takes),
memory, and how fast JPEGs are read, cropped and resized.

examples:
  python -m vit_jax.bench vit_s16 --batch_size=16
  python -m vit_jax.bench vit_b16 resnet50 --dtype=bfloat16 --batch_size=128 --json=bench.json
  python -m vit_jax.bench vit_ti16 --only=train --set remat=block --set drop_path_rate=0.1
  python -m vit_jax.bench vit_ti16 --only=input --dataset=path/to/images

Rates are medians over --steps steps after the first. The first step is timed from the call to the
result: tracing, compilation (or reading it from the cache) and one step. Compare machines only when
nothing else runs on them.
"""
PARTS = ('train', 'infer', 'input')


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parser().parse_args(argv)
  fields = fields_of(args.set)
  rows = []
  for model in args.models:
    rows.append(
      measure(
        model,
        args.only or PARTS,
        batch_size=args.batch_size,
        image_size=args.image_size,
        classes=args.classes,
        steps=args.steps,
        dataset=args.dataset,
        fields={'dtype': args.dtype, **fields},
      )
    )
    show(table(rows[-1]))
  if args.json == '-':
    show(json.dumps(rows))
  elif args.json:
    pathlib.Path(args.json).write_text(json.dumps(rows, indent=2) + '\n', 'utf-8')
  return 0


def _parser() -> Parser:
  made = Parser('bench', description=_DESCRIPTION)
  add = made.option
  named = 'registered names, such as vit_s16'
  add('models', tuple[str, ...], named, metavar='MODEL', parse=check_model_name)
  parts = 'measure this part (may be repeated)'
  made.add_argument('--only', action='append', choices=PARTS, help=parts)
  add('--batch_size', int, 'global batch size', 16, low=1, high=1 << 20)
  add('--image_size', int, 'height and width, pixels', 224, low=1, high=LARGEST_SIDE)
  add('--classes', int, 'outputs of the head', 1000, low=1, high=1 << 20)
  add('--steps', int, 'timed steps', 8, low=1, high=10**6)
  add('--dtype', str, 'precision of the computation: float32 or bfloat16', 'float32')
  setting = 'any field of the model'
  made.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE', help=setting)
  add('--dataset', str, 'images to read; otherwise JPEGs of 500 x 375 are made', '', path=True)
  written = "also write JSON here ('-': to standard output)"
  add('--json', str, written, '', metavar='FILE', path=True, parse=check_new_file)
  return made


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
    'cores': os.cpu_count(),
    'runtime': runtime.describe(),
    'xla_flags': os.environ.get('XLA_FLAGS', ''),
    'jax': jax.__version__,
    'peak_tflops': found and found[0] / 1e12,
    'peak_source': found and found[1],
  }
  if 'train' in parts or 'infer' in parts:
    row |= _measure_model(module, parts, batch_size, image_size, classes, steps, found)
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

  from vit_jax import rng
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
  if 'infer' in parts:
    preprocess = Preprocess('decode')
    compute = jax.jit(lambda v, x: module.apply(v, preprocess.normalize(x), train=False))
    first, seconds = _times(lambda: compute(variables, batch['image']), steps)
    row |= _rates('infer', first, seconds, batch_size, per_image, peak)
  if 'train' in parts:
    step, state = training_step(module, variables, classes)
    key = rng.stream(0, 'dropout')
    shapes = jax.eval_shape(lambda: variables)
    del variables

    def update():
      nonlocal state
      state, metrics = step(state, batch, key)
      return state, metrics

    first, seconds = _times(update, steps, timing.CpuStepThrottle(jax.default_backend() == 'cpu'))
    needed = flops.training_flops(module, shapes, (1, *shape))
    row['training_gflop_per_image'] = needed / 1e9
    row |= _rates('train', first, seconds, batch_size, needed, peak)
  return row


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

  from vit_jax import optimizers, tasks
  from vit_jax.data import Preprocess
  from vit_jax.training import train_state, train_step

  def rate(step: jax.Array) -> jax.Array:
    return jnp.float32(1e-4)

  tx = optimizers.make_optimizer(
    optimizers.build('adamw', {}),
    rate,
    optimizers.parameter_factors(variables['params']),
  )
  step = train_step.make_train_step(
    module,
    tasks.build('classify', classes),
    tx,
    rate,
    Preprocess('decode'),
  )
  return jax.jit(step, donate_argnums=0), train_state.create(variables, tx)


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


def table(row: dict[str, Any]) -> str:
  """A measurement as text."""
  title = f'{row["model"]}  batch {row["batch_size"]}, {row["image_size"]} pixels'
  lines = [f'{title}, {row["device"]}, {row["cores"]} cores']
  for part in ('train', 'infer'):
    if f'{part}_img_sec' in row:
      mfu = row.get(f'{part}_mfu')
      lines.append(
        f'  {part:6} {row[f"{part}_img_sec"]:8.2f} images/s, '
        f'first step {row[f"{part}_first_step_s"]:.1f} s'
        + (f', MFU {mfu:.0%}' if mfu is not None else '')
      )
  if 'input_img_sec' in row:
    lines.append(f'  input  {row["input_img_sec"]:8.0f} images/s')
  memory = [
    f'{row[key]:.0f} MiB of the {where}'
    for where in ('host', 'device')
    if (key := f'{where}_memory_peak_mib') in row
  ]
  lines.append(f'  memory {", ".join(memory) or "unknown"}')
  if row['peak_tflops']:
    lines.append(f'  peak   {row["peak_tflops"]:8.2f} TFLOP/s ({row["peak_source"]})')
  return '\n'.join(lines + [f'  {k:10} {v}' for k, v in row['runtime'].items()])


if __name__ == '__main__':
  if sys.argv[1:] == []:
    sys.argv.append('--help')
  run_cli(main)
