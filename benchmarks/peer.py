"""A process that computes when it is told to: what the side-by-side scripts share."""

import json
import os
import subprocess
from collections.abc import Sequence

_BEFORE = """
import json, resource, sys, time
words = json.loads(sys.argv[1])
"""
_AFTER = """
print('ready', flush=True)
for line in sys.stdin:
  began = time.perf_counter()
  globals()[line.strip()]()
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps([time.perf_counter() - began, memory]), flush=True)
"""


class Peer:
  """Lives through all rounds, so that what is timed is warm; computes only when it is its turn.

  Attributes:
    name: of the peer.
    lives: whether it could be started; if not, its last words were printed.
    memory: peak memory of the process so far, MiB.

  Args:
    name: of the peer.
    python: the interpreter that has its packages.
    code: defines the functions that `time` calls; finds `words` as they were given.
    words: anything that JSON can hold.
    path: first on the module search path; '' for nothing.
  """

  def __init__(self, name: str, python: str, code: str, words: list, path: str = ''):
    self.name, self.memory = name, 0.0
    self._process = subprocess.Popen(
      [python, '-c', _BEFORE + code + _AFTER, json.dumps(words)],
      env={**os.environ, 'PYTHONPATH': path},
      text=True,
      cwd=path or '/',  # which Python searches first
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    self.lives = self._process.stdout.readline().strip() == 'ready'
    if not self.lives:
      print(f'{name} is left out: {self._process.stderr.read().strip().splitlines()[-1]}')

  def time(self, function: str) -> float:
    """Seconds of one call of a function of its code."""
    print(function, file=self._process.stdin, flush=True)
    answer = self._process.stdout.readline()
    if not answer:
      raise SystemExit(f'{self.name}: {self._process.stderr.read()[-800:]}')
    seconds, self.memory = json.loads(answer)
    return seconds

  def stop(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait(30)


def alternate(jobs: Sequence[tuple[Peer, str]], rounds: int) -> dict[tuple[str, str], list[float]]:
  """Seconds of each call, by (peer's name, function): one of each in turn, and again."""
  seconds = {(peer.name, function): [] for peer, function in jobs}
  for _ in range(rounds):
    for peer, function in jobs:
      seconds[peer.name, function].append(peer.time(function))
  return seconds
