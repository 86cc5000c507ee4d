"""Trains small models on 8 simulated devices and on one; prints what is to be compared as JSON.

Arguments: names of `CASES`, each with the sizes of a mesh: vit:1x8.
"""

import functools
import json
import os
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '0'  # as users have them, and quicker in all
# As XLA has it: one device alone might take another library (`vit_jax.kernels`), and the other
# rounding grows in 20 steps.
os.environ['XLA_FLAGS'] = (
  '--xla_force_host_platform_device_count=8 --xla_cpu_experimental_ynn_fusion_type='
  'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION,'
  'LIBRARY_FUSION_TYPE_REDUCE'
)

import jax
import numpy as np
import optax

from vit_jax import data, models, parallel, rng, tasks, tree
from vit_jax.config import Ema
from vit_jax.parallel.collectives import collectives
from vit_jax.training import train_step
from vit_jax.training.train_state import create

CLASSES, BATCH, STEPS = 11, 16, 20
# Pixels. The last stage of a whole ResNet-50 has one place for 32 of them, and its normalisation,
# over 16 values, lets rounding grow a hundredfold within 20 steps.
SIZE, SIZES = 32, {'resnet50': 64}
_VIT = {'depth': 2, 'patch_size': (8, 8)}  # and 192 wide
CASES = {
  'vit': ('vit_ti16', _VIT),
  'scanned': ('vit_ti16', _VIT | {'depth': 3, 'scan': True, 'remat': 'block'}),
  'unscanned': ('vit_ti16', _VIT | {'remat': 'block', 'scan': False}),
  'hybrid': ('r_ti16', _VIT | {'patch_size': (16, 16), 'stem_blocks': (1,), 'stem_width': 64}),
  'resnet': ('resnet50', {'blocks': (1, 1, 1)}),
  'resnet50': ('resnet50', {}),
}


def batch(step, size=SIZE):
  """Images whose brightness tells their class, and noise."""
  r = np.random.default_rng(step)
  label = r.integers(0, CLASSES, BATCH).astype(np.int32)
  image = r.integers(0, 150, (BATCH, size, size, 3)) + 10 * label[:, None, None, None]
  return {'image': image.astype(np.uint8), 'label': label}


def train(module, placement, size=SIZE, steps=STEPS):
  """Losses of all steps, the state after them, and the compiled step."""
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05, momentum=0.9))
  images = np.zeros((1, size, size, 3), np.float32)
  init = functools.partial(module.init, train=False)
  variables = placement.build(init, rng.stream(3, 'params'), images)
  state = placement.build(lambda v: create(v, tx, ema=True), variables)
  step = placement.compile_train(
    train_step.make_train_step(
      module,
      tasks.build('classify', CLASSES),
      tx,
      lambda step: 0.05,
      data.Preprocess(f'decode|resize({size})'),
      ema=Ema(0.9),
      constrain=placement.constrain,
      divided=placement.divides_state,
    )
  )
  key, losses = rng.stream(0, 'dropout'), []
  state = placement.put_state(state)
  first = state
  compiled = step.lower(state, placement.put_batch(batch(0, size)), key).compile()
  for i in range(steps):
    state, metrics = step(state, placement.put_batch(batch(i, size)), key)
    losses.append(float(placement.get_metrics(metrics)['loss'].total) / BATCH)
  facts = {
    'programs': step._cache_size(),
    'donated': all(x.is_deleted() for x in jax.tree.leaves(first)),
    'where_it_was': all(
      a.sharding == b.sharding for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(state))
    ),
  }
  return losses, state, compiled, facts


def compare(name, data_size, fsdp_size):
  kind, fields = CASES[name]
  module = models.build(kind, CLASSES, **fields)
  size = SIZES.get(name, SIZE)
  one = train(module, parallel.make('data', jax.devices()[:1]), size)
  placement = parallel.make('fsdp', mesh=parallel.Mesh(data_size, fsdp_size))
  losses, state, compiled, facts = train(module, placement, size)
  kept = {'params': state.params, 'opt_state': state.opt_state, 'ema': state.ema}
  of_one, of_many = (tree.flatten(s.variables) for s in (one[1], state))
  return facts | {
    'case': name,
    'mesh': [data_size, fsdp_size],
    'losses': losses,
    'losses_of_one': one[0],
    'differences': {n: float(np.abs(of_many[n] - np.asarray(x)).max()) for n, x in of_one.items()},
    'largest': {n: float(np.abs(x).max()) for n, x in of_one.items()},
    'bytes': {n: sum(x.nbytes for x in jax.tree.leaves(t)) for n, t in kept.items()},
    'share': {
      n: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(t))
      for n, t in kept.items()
    },
    'predicted': {n: placement.bytes_of({n: t}) for n, t in kept.items()},
    'params': {n: list(x.shape) for n, x in tree.flatten(state.params).items()},
    'collectives': [
      [c.kind, c.nbytes, c.devices, c.times, c.source] for c in collectives(compiled.as_text())
    ],
  }


if __name__ == '__main__':
  for word in sys.argv[1:]:
    case, mesh = word.split(':')
    print(json.dumps(compare(case, *map(int, mesh.split('x')))), flush=True)
