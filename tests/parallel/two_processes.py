"""One of two processes, of two devices each, that train together; prints losses as JSON.

Arguments: number of this process, port, placement.
"""

import json
import os
import sys

from tests.support import xla_flags

if __name__ == '__main__':
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.environ['XLA_FLAGS'] = xla_flags(2)

import jax
import numpy as np
import optax

from vit_jax import data, models, parallel, rng, tasks
from vit_jax.training import train_step
from vit_jax.training.train_state import create

BATCH = 8


def losses(placement, rows):
  """Three steps of SGD; the losses of the whole batch and the norm of the weights after them.

  Args:
    placement: of all devices.
    rows: of a batch of 8 that this process has.
  """
  module = models.build(
    'vit_ti16', 5, patch_size=(4, 4), width=32, depth=1, num_heads=2, mlp_dim=64
  )
  tx = optax.sgd(0.1, momentum=0.9)
  init = jax.jit(lambda key, x: module.init(key, x, train=False))
  images = np.zeros((1, 8, 8, 3), np.float32)
  variables = placement.build(init, rng.stream(3, 'params'), images)
  state = placement.put_state(placement.build(lambda v: create(v, tx), variables))
  step = placement.compile_train(
    train_step.make_train_step(
      module,
      tasks.build('classify', 5),
      tx,
      lambda step: 0.1,
      data.Preprocess('decode|resize(8)'),
      constrain=placement.constrain,
    )
  )
  found, numbers = [], np.random.default_rng(0)
  for _ in range(3):
    image = numbers.integers(0, 256, (BATCH, 8, 8, 3)).astype(np.uint8)
    batch = {'image': image[rows], 'label': np.arange(BATCH, dtype=np.int32)[rows] % 5}
    state, metrics = step(state, placement.put_batch(batch), rng.stream(0, 'dropout'))
    found.append(float(placement.get_metrics(metrics)['loss'].total))
  return [*found, float(optax.tree.norm(state.params))]


def main(process: str, port: str, name: str) -> None:
  jax.distributed.initialize(f'127.0.0.1:{port}', num_processes=2, process_id=int(process))
  rows = slice(0, BATCH // 2) if process == '0' else slice(BATCH // 2, BATCH)
  found = losses(parallel.make(name), rows)
  print(json.dumps({'processes': jax.process_count(), 'found': found}), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
