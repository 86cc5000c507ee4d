"""A process that computes when it is told to, so that programs can be timed in turns."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from vit_jax.errors import DependencyError

_BEFORE = """
import json, sys, time
words = json.loads(sys.argv[1])
def peak_mib():
  try: import resource  # Windows has none
  except ImportError: return 0.0
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / (2**20 if sys.platform == 'darwin' else 2**10)
"""
_AFTER = """
print('ready', flush=True)
for line in sys.stdin:
  began = time.perf_counter()
  globals()[line.strip()]()
  print(json.dumps([time.perf_counter() - began, peak_mib()]), flush=True)
"""

# A turn's calls end with whichever comes first.
_TURN_SECONDS, _TURN_CALLS = 0.5, 30


class Peer:
  """Lives through all rounds, so that what is timed is warm; computes only when it is its turn.

  Attributes:
    name: of the peer.
    memory: peak memory of the process so far, MiB; 0 where the system does not tell.

  Args:
    name: of the peer.
    python: the interpreter that has its packages.
    code: defines the functions that `time` calls; finds `words` as they were given.
    words: anything that JSON can hold.
    path: first on the module search path; '' for nothing.

  Raises:
    DependencyError: it did not start.
  """

  def __init__(self, name: str, python: str, code: str, words: Any, path: str = ''):
    self.name, self.memory = name, 0.0
    self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115, a pipe that nobody reads may fill
    python = os.path.abspath(shutil.which(python) or python)  # as seen from here
    try:
      self._process: subprocess.Popen[str] = subprocess.Popen(
        [python, '-c', _BEFORE + code + _AFTER, json.dumps(words)],
        env={**os.environ, 'PYTHONPATH': path},
        text=True,
        cwd=path or '/',  # which Python searches first
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._errors,
      )
    except OSError as e:
      self._errors.close()
      raise DependencyError(f'{name} cannot be timed: {python}: {e.strerror or e}') from e
    assert self._process.stdin and self._process.stdout
    self._input, self._output = self._process.stdin, self._process.stdout
    if self._output.readline().strip() != 'ready':
      reason = self._last_words()
      self.stop()
      raise DependencyError(f'{name} cannot be timed: {reason}')

  def time(self, function: str) -> float:
    """Seconds of one call of a function of its code."""
    self._input.write(f'{function}\n')
    self._input.flush()
    answer = self._output.readline()
    if not answer:
      raise DependencyError(f'{self.name} ended while it was timed: {self._last_words()}')
    seconds, self.memory = json.loads(answer)
    return seconds

  def stop(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.wait(30)
    for pipe in (self._input, self._output, self._errors):
      with contextlib.suppress(BrokenPipeError):
        pipe.close()

  def _last_words(self) -> str:
    self._process.wait(30)
    self._errors.seek(0)
    said = self._errors.read().strip().splitlines()
    return said[-1] if said else f'status {self._process.returncode}'


def alternate(jobs: Sequence[tuple[Peer, str]], rounds: int) -> dict[tuple[str, str], list[float]]:
  """Seconds of a call in each turn, by (peer's name, function): a turn of each, and again."""
  seconds: dict[tuple[str, str], list[float]] = {
    (peer.name, function): [] for peer, function in jobs
  }
  for _ in range(rounds):
    for peer, function in jobs:
      seconds[peer.name, function].append(_turn(peer, function))
  return seconds


def _turn(peer: Peer, function: str) -> float:
  """Seconds of a call in steady state: the median of a turn's.

  The first call of several does not count: it meets caches full of another peer's data, and threads
  of that peer that still spin for work.
  """
  seconds = [peer.time(function)]
  while sum(seconds) < _TURN_SECONDS and len(seconds) < _TURN_CALLS:
    seconds.append(peer.time(function))
  return statistics.median(seconds[1:] or seconds)
