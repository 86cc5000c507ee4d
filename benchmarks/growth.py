"""How a training step's time and memory grow with depth, width, tokens and batch, and a figure.

  python benchmarks/growth.py --out=growth.png

One ViT, one size changed at a time. Beside each measurement stands what the mathematics gives: the
model's own arithmetic, and what `plan` says is kept for the backward pass. A step that grew faster
than that would show as a rising line.
"""

import argparse
import statistics
import time

BASE = {'depth': 6, 'width': 192, 'pixels': 224, 'batch': 8}
AXES = {
  'depth': (2, 4, 6, 9, 12),
  'width': (128, 192, 256, 384, 576),
  'pixels': (112, 160, 224, 320, 448),
  'batch': (2, 4, 8, 16, 32),
}


def measure(depth: int, width: int, pixels: int, batch: int, steps: int) -> dict[str, float]:
  """One training step with AdamW: 'seconds', 'flops', 'workspace' and 'activations' in bytes."""
  import jax
  import numpy as np

  from vit_jax import bench, models
  from vit_jax.training import flops, summary

  module = models.build(
    'vit_ti16', 1000, depth=depth, width=width, num_heads=width // 64, mlp_dim=4 * width
  )
  shape = (batch, pixels, pixels, 3)
  images = {
    'image': np.random.default_rng(0).integers(0, 256, shape, np.uint8),
    'label': np.arange(batch),
  }
  key = jax.random.key(0)
  variables = jax.jit(lambda: module.init(key, np.zeros((1, *shape[1:]), np.float32)))()
  found = {
    'flops': 3 * batch * flops.forward_flops(module, variables, (1, *shape[1:])),
    'activations': float(summary.activation_bytes(module, variables, shape)),
  }
  step, state = bench.training_step(module, variables, 1000)
  step = step.lower(state, images, key).compile()
  found['workspace'] = float(step.memory_analysis().temp_size_in_bytes)
  times = []
  for _ in range(steps + 1):
    began = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, images, key))
    times.append(time.perf_counter() - began)
  return found | {'seconds': statistics.median(times[1:])}


def main() -> None:
  """Measures, prints a table and draws the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--steps', type=int, default=5, help='timed steps of each size')
  parser.add_argument('--out', default='growth.png')
  args = parser.parse_args()
  from vit_jax import runtime

  runtime.start()
  runtime.prepare_jax()
  found = {
    axis: {v: measure(**{**BASE, axis: v}, steps=args.steps) for v in values}
    for axis, values in AXES.items()
  }
  for axis, rows in found.items():
    for value, row in rows.items():
      print(
        f'{axis:7} {value:4}  {row["seconds"]:7.3f} s  {row["flops"] / 1e9:8.1f} GFLOP  '
        f'{row["flops"] / row["seconds"] / 1e9:6.1f} GFLOP/s  '
        f'workspace {row["workspace"] / 2**20:7.1f} MiB  '
        f'activations {row["activations"] / 2**20:7.1f} MiB'
      )
    print(
      f'{axis:7} {growth(rows, "seconds"):.2f} of time where arithmetic has '
      f'{growth(rows, "flops"):.2f}, {growth(rows, "workspace"):.2f} of memory where '
      f'activations have {growth(rows, "activations"):.2f} (exponents, fitted)'
    )
  draw(found, args.out)


def growth(rows: dict[int, dict[str, float]], name: str) -> float:
  """The exponent of a power law fitted to a quantity."""
  import numpy as np

  return float(np.polyfit(np.log(list(rows)), np.log([r[name] for r in rows.values()]), 1)[0])


def draw(found: dict[str, dict[int, dict[str, float]]], path: str) -> None:
  """Time and memory against each size, both axes logarithmic, measured and by the mathematics."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(2, len(found), figsize=(12, 5.4), sharex='col', sharey='row')
  pairs = (
    ('seconds', 'flops', 'seconds a step', 'in proportion to arithmetic'),
    ('workspace', 'activations', 'bytes of workspace', 'in proportion to activations'),
  )
  for column, (axis, rows) in enumerate(found.items()):
    for row, (name, model, label, other) in enumerate(pairs):
      chart = axes[row, column]
      measured = [r[name] for r in rows.values()]
      base = rows[BASE[axis]]
      chart.loglog(list(rows), measured, 'o-', label='measured')
      chart.loglog(
        list(rows), [r[model] / base[model] * base[name] for r in rows.values()], '--', label=other
      )
      chart.set_xticks(list(rows), [str(v) for v in rows])
      chart.minorticks_off()
      if row:
        chart.set_xlabel(axis)
      if not column:
        chart.set_ylabel(label)
        chart.legend(frameon=False, fontsize=8)
  figure.tight_layout()
  figure.savefig(path, dpi=110)


if __name__ == '__main__':
  main()
