"""Hostile weight files: each loads as it was written or ends with one line that names the file."""

import collections
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip('h5py')


def trial(folder, seed, count):
  """The results of so many cases; a process that dies or hangs is a result too."""
  found, first, run = {}, 0, 0
  while first < count:
    run += 1
    args = [sys.executable, '-X', 'faulthandler', '-m', 'tests.weights.hostile']
    args += [str(folder / f'run{run}'), str(seed), str(first), str(count)]
    process = subprocess.Popen(
      args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )  # fmt: skip
    try:
      out, errors = process.communicate(timeout=120 + 2 * (count - first))
    except subprocess.TimeoutExpired:
      process.kill()
      out, errors = process.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines, errors[-2000:]
    for case, result in zip(lines[::2], lines[1::2]):
      found[case['case'], case['name']] = result['result']
    if len(lines) % 2:
      found[lines[-1]['case'], lines[-1]['name']] = f'DIED with {process.returncode}'
    first = max(number for number, _ in found) + 1
  return found


def check(found):
  kinds = collections.Counter(text.split(':')[0].split(' ')[0] for text in found.values())
  bad = {k: v for k, v in found.items() if v != 'loaded' and not v.startswith('refused')}
  shown = '\n'.join(f'{number} {name}: {text[:300]}' for (number, name), text in bad.items())
  print(dict(kinds))
  assert not bad, f'{dict(kinds)}\n{shown}'
  assert kinds['refused'] > len(found) / 4


def test_sixty_hostile_files(tmp_path):
  check(trial(tmp_path, 1, 60))


@pytest.mark.slow
def test_two_thousand_hostile_files(tmp_path):
  check(trial(tmp_path, 2, 2000))


@pytest.mark.slow
def test_five_hundred_wrong_fields_of_json(tmp_path):
  check(trial(tmp_path, 'json', 500))
