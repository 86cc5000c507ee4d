"""Runs that begin on some devices and are resumed on others. As a program: the whole table.

Arguments: a folder for the runs. Prints, as JSON, what `resumed` finds for every pair.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

from tests.support import xla_flags

if __name__ == '__main__':
  os.environ['JAX_PLATFORMS'] = 'cpu'
  os.environ['XLA_FLAGS'] = xla_flags(8)

import jax
import numpy as np

from tests.training import runs
from vit_jax.checkpoint import Saved
from vit_jax.metric_writer import read_metrics
from vit_jax.training import loop

# Name: placement, devices, groups of devices, processes. Of several processes each has its share of
# the devices, and so of every array.
TOPOLOGIES = {
  'data 1': ('data', 1, 1, 1),
  'fsdp 2': ('fsdp', 2, 1, 1),
  'fsdp 2 x 2': ('fsdp', 4, 2, 1),
  'fsdp 8': ('fsdp', 8, 1, 1),
  'fsdp 4, 2 processes': ('fsdp', 4, 1, 2),
  'fsdp 4': ('fsdp', 4, 1, 1),
  'pmap 2': ('pmap', 2, 1, 1),
  'data 4': ('data', 4, 1, 1),
  'pmap 2, 2 processes': ('pmap', 2, 1, 2),
}
# Each of 1, 2, 4 and 8 devices and two processes to each, and the other placements.
TABLE = (*itertools.product(list(TOPOLOGIES)[:5], repeat=2),)
OTHERS = (
  ('pmap 2', 'data 4'),
  ('data 4', 'pmap 2, 2 processes'),
  ('pmap 2, 2 processes', 'fsdp 8'),
  ('fsdp 8', 'pmap 2'),
)
HALF, WHOLE = 4, 8
# pmap's devices draw random numbers of their own: there are none here but those of crops.
_OPTIONS = {
  'model__width': '32',
  'model__mlp_dim': '64',
  'model__dropout': '0',
  'model__drop_path_rate': '0',
  'ema__decay': '0.9',
  'schedule__name': 'constant',
  'log__every': '1 step',
  'evaluation__every': '100 steps',
  'checkpoint__every': '100 steps',
  'dataset__val': '',
  'dataset__test': '',
}


def run(workdir, topology, steps):
  """Trains to a step, from the checkpoint where there is one."""
  parallel, devices, groups, processes = TOPOLOGIES[topology]
  given = {**_OPTIONS, 'parallel': parallel, 'total': f'{steps} steps'}
  if parallel == 'fsdp':
    given['mesh__data'] = str(groups)
  if processes > 1:
    subprocess.run(
      [*runs.command(workdir, **given), f'--processes={processes}', '--quiet'],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': xla_flags(devices)},
      cwd=runs.ROOT,
      check=True,
    )
    return
  found = jax.devices()[:devices]
  with mock.patch.object(jax, 'devices', lambda *_: found), contextlib.redirect_stdout(None):
    loop.train(runs.options(**given), str(workdir))


def begin(folder, topology):
  """A run of half the steps, and another of all of them."""
  path = pathlib.Path(folder) / topology
  run(path / 'half', topology, HALF)
  run(path / 'whole', topology, WHOLE)


def resumed(folder, one, *others):
  """What became of a run that began on one topology when it was resumed on others in turn.

  Returns:
    'losses' of the steps after that and those of the run on the first 'alone', 'same_data' whether
    the input stands where it stood, 'same_bytes' whether all arrays are equal.
  """
  path = pathlib.Path(folder) / one
  workdir = path / ', '.join(others)
  shutil.copytree(path / 'half', workdir)
  for i, other in enumerate(others, 1):
    run(workdir, other, HALF + (WHOLE - HALF) * i // len(others))
  ends = [Saved.read(p / 'checkpoints' / str(WHOLE)) for p in (workdir, path / 'whole')]
  of_one, of_whole = ({**end.variables, **end.training} for end in ends)
  return {
    'one': one,
    'others': others,
    'losses': _losses(workdir),
    'alone': _losses(path / 'whole'),
    'same_data': ends[0].meta['data_state'] == ends[1].meta['data_state'],
    'same_bytes': all(np.array_equal(x, of_whole[name]) for name, x in of_one.items()),
  }


def _losses(workdir):
  rows = [row for row in read_metrics(workdir) if row['split'] == 'train']
  assert [row['step'] for row in rows] == list(range(1, WHOLE + 1))
  return [row['loss'] for row in rows[HALF:]]


if __name__ == '__main__':
  pairs = (*TABLE, *OTHERS)
  for first in dict.fromkeys(pair[0] for pair in pairs):
    begin(sys.argv[1], first)
  for first, second in pairs:
    print(json.dumps(resumed(sys.argv[1], first, second)), flush=True)
