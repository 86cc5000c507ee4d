"""The main job where nothing is there yet: weights and images come by themselves."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.data.miniatures import MINIATURES
from tests.loopback import files
from tests.training.runs import ROOT
from vit_jax import models
from vit_jax.metric_writer import read_metrics
from vit_jax.weights.saving import to_tensors

pytest.importorskip('tensorflow_datasets')
pytestmark = pytest.mark.slow

# What a plugin changes: addresses and checksums, and how long unpacking takes.
PLUGIN = """
import json, os, pathlib, time
from tests.data import miniatures
from vit_jax.data.sources import unpacking
from vit_jax.weights import hub

about = json.loads(os.environ['ABOUT'])
miniatures.install(
  'stanford_dogs', pathlib.Path(about['archives']), about['counts'], about['url'] + '/stalls'
)
hub._PLACES['vit'] = about['url'] + '/breaks/'

members = unpacking._tar_members

def slowly(tar):
  for member in members(tar):
    time.sleep(about['seconds'])
    yield member

unpacking._tar_members = slowly
"""
SMALL = {'width': 16, 'depth': 1, 'num_heads': 2, 'mlp_dim': 24}
OPTIONS = {
  **{f'model.{name}': value for name, value in SMALL.items()},
  'input.image_size': 32,
  'total': '4 steps',
  'batch_size': 16,
}


def test_the_main_job_survives_kills_while_it_gets_what_it_needs(server, tmp_path):
  cache, archives = tmp_path / 'cache', tmp_path / 'archives'
  downloads = cache / 'datasets' / 'downloads' / 'stanford_dogs'
  for folder in (archives, downloads):
    folder.mkdir(parents=True)
  wanted = MINIATURES['stanford_dogs'].write(archives)
  shutil.copy(archives / 'lists.tar', downloads)  # by hand
  images = server.files['stanford_dogs/images.tar'] = (archives / 'images.tar').read_bytes()
  server.files['imagenet21k/ViT-B_16.npz'] = weights(tmp_path / 'weights.npz')
  (tmp_path / 'bare_machine.py').write_text(PLUGIN)
  counts = {split: len(rows) for split, rows in wanted.items()}
  about = {'archives': str(archives), 'counts': counts, 'url': server.url}
  workdir = tmp_path / 'run'

  def start(seconds=0.0):
    return subprocess.Popen(
      [
        *(sys.executable, '-m', 'vit_jax.main', f'--config={ROOT}/configs/vit_b16_dogs.py'),
        *(f'--workdir={workdir}', *(f'--config.{k}={v}' for k, v in OPTIONS.items())),
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={
        **os.environ,
        'ABOUT': json.dumps({**about, 'seconds': seconds}),
        'TFDS_DATA_DIR': str(tmp_path / 'tfds'),
        'VIT_JAX_CACHE': str(cache),
        'VIT_JAX_PLUGINS': str(tmp_path / 'bare_machine.py'),
      },
    )

  def half_is_there():
    return any(p.stat().st_size > len(images) // 3 for p in downloads.glob('.*.partial'))

  kill(start(), half_is_there)
  kill(start(seconds=0.1), lambda: any(cache.glob('datasets/stanford_dogs/.*.preparing/*/*')))
  asked = [(path, wanted) for path, wanted in server.log if 'images.tar' in path]
  assert [wanted and wanted[:6] for _, wanted in asked] == [None, 'bytes=']
  last = start()
  out, err = last.communicate(timeout=300)
  assert last.returncode == 0 and 'Traceback' not in err, err
  assert len([path for path, _ in server.log if 'images.tar' in path]) == 2
  assert len([path for path, _ in server.log if 'ViT-B_16' in path]) == 2  # broke off once
  assert out.index('unpacking') < out.index('120 classes' if '120 classes' in out else 'files')
  assert len(json.loads((workdir / 'classes.json').read_text())) == 120
  assert [row for row in read_metrics(workdir) if row['split'] == 'test']
  assert not [p for p in files(cache / 'datasets') if p.startswith('.')]


def kill(process, when):
  """Kills a process as soon as something is so."""
  end = time.monotonic() + 120
  while not when():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()


def weights(path: pathlib.Path) -> bytes:
  """A small ViT under the official names, with a head of 7 classes."""
  module = models.build('vit_b16', 7, **SMALL)
  variables = module.init(jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False)
  np.savez(path, **to_tensors(variables, module, 'npz', (32, 32)))
  return path.read_bytes()
