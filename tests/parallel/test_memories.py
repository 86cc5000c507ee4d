"""The plan's estimate of a step's memory is near XLA's analysis, whatever divides it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODES = ['data:1', 'pmap:1', 'fsdp:1', 'fsdp:2']
QUICK = [f'small:{mode}:none' for mode in MODES[:3]] + ['small:fsdp:1:block']
WHOLE = [
  f'{model}:{mode}:{remat}'
  for model, remats in {'vit': 2, 'hybrid': 2, 'resnet': 1}.items()
  for remat in ('none', 'block')[:remats]
  for mode in MODES
]


def _check(words):
  """Compares the cases in a program of its own, with the XLA flags of a command."""
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  run = [sys.executable, '-m', 'tests.parallel.memories', *words]
  done = subprocess.run(run, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
  assert done.returncode == 0
  ratios = {}
  for found in map(json.loads, done.stdout.splitlines()):
    ratios[found['case']] = sum(found['estimate'].values()) / found['xla']
    print(f'{found["case"]:20} {ratios[found["case"]]:.3f} of {found["xla"] / 2**20:.0f} MiB')
  assert list(ratios) == words
  assert {case: ratio for case, ratio in ratios.items() if not 0.85 < ratio < 1.15} == {}


def test_the_plan_is_near_what_xla_says():
  _check(QUICK)


@pytest.mark.slow
def test_the_plan_is_near_what_xla_says_of_whole_models():
  _check(WHOLE)
