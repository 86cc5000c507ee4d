"""Many attempts at training, each in a fork of one process that has imported everything.

A command starts in seconds and a fork at once, so that hundreds of kills fit into minutes. An
attempt can be harmed at the n-th moment at which it opens, makes or renames a file of its workdir.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from tests.training.runs import ROOT

# Between the attempts' words on stderr.
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclasses.dataclass
class Attempt:
  """One attempt at a run.

  Attributes:
    words: after `python -m vit_jax.main`.
    folder: whose files make the moments.
    moment: at which it is harmed; -1 for never.
    harm: 'fill', 'read-only' or 'remove', of the folder.
    number: of a signal that it is sent; 0 for none.
    after: seconds until then.
    environment: variables.
  """

  words: list[str]
  folder: str
  moment: int = -1
  harm: str = ''
  number: int = 0
  after: float = 0.0
  environment: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Ended:
  """How an attempt ended.

  Attributes:
    status: of its process, negative for a signal.
    out, err: what it wrote.
    moments: the files that it opened, made or renamed, in order.
    seconds: that it took.
  """

  status: int
  out: str
  err: str
  moments: list[str]
  seconds: float


class Forker:
  """Starts attempts; a context manager."""

  def __init__(self, scratch: pathlib.Path):
    self._scratch = scratch
    self._count = 0

  def __enter__(self) -> 'Forker':
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tests.training.forked', str(self._scratch)],
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    return self

  def __exit__(self, *_: object) -> None:
    self._process.communicate()  # ends it, and closes both pipes

  def run(self, *attempts: Attempt, gap: float = 0.0) -> list[Ended]:
    """Runs attempts beside each other, each a gap of seconds after the one before."""
    jobs = [dataclasses.asdict(a) for a in attempts]
    self._process.stdin.write(json.dumps([gap, jobs]) + '\n')
    self._process.stdin.flush()
    return [Ended(**found) for found in json.loads(self._process.stdout.readline())]


def fill(folder: pathlib.Path) -> None:
  """Leaves no room on the disk of a folder."""
  with open(folder / 'ballast', 'ab', buffering=0) as f:
    for size in (1 << 20, 1 << 12, 1):
      try:
        while True:
          f.write(bytes(size))
      except OSError:
        pass


def _harm(kind: str, folder: pathlib.Path) -> None:
  if kind == 'fill':
    fill(folder.parent)
  elif kind == 'remove':
    shutil.rmtree(folder, ignore_errors=True)
  elif kind == 'read-only':
    subprocess.run(['mount', '--bind', folder.parent, folder.parent], check=True)
    subprocess.run(['mount', '-o', 'remount,bind,ro', folder.parent], check=True)


def _watch(attempt: Attempt, log: str) -> None:
  """Counts the moments of this process, and harms it at the one asked for."""
  file = open(log, 'w', encoding='utf-8')  # noqa: SIM115
  count, busy = 0, False

  def hook(event: str, args: tuple) -> None:
    nonlocal count, busy
    if busy or event not in ('open', 'os.mkdir', 'os.rename'):
      return
    path = args[0]
    if not isinstance(path, (str, bytes)) or attempt.folder not in os.fsdecode(path):
      return
    if event == 'open' and not (args[2] or 0) & _WRITING:
      return
    busy = True
    file.write(f'{event} {os.fsdecode(path)}\n')
    file.flush()
    if count == attempt.moment:
      _harm(attempt.harm, pathlib.Path(attempt.folder))
    count, busy = count + 1, False

  sys.addaudithook(hook)


def _serve(scratch: pathlib.Path) -> Attempt | None:
  """Forks for each attempt; returns in the child, with what it shall do."""
  count = 0
  for line in sys.stdin:
    gap, jobs = json.loads(line)
    running = []
    for job in jobs:
      count += 1
      attempt, base = Attempt(**job), str(scratch / f'attempt-{count}')
      pid = os.fork()
      if not pid:
        for number, name in ((1, '.out'), (2, '.err')):
          os.dup2(os.open(base + name, os.O_CREAT | os.O_WRONLY), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(attempt.environment)
        _watch(attempt, base + '.moments')
        return attempt
      running.append((pid, attempt, base, time.monotonic()))
      time.sleep(gap)
    ended = [_end(*each) for each in running]
    print(json.dumps(ended), flush=True)
  return None


def _end(pid: int, attempt: Attempt, base: str, began: float) -> dict:
  if attempt.number:
    time.sleep(max(0.0, attempt.after - (time.monotonic() - began)))
    os.kill(pid, attempt.number)
  status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
  out, err, moments = (
    pathlib.Path(base + name).read_text('utf-8', 'replace') if os.path.exists(base + name) else ''
    for name in ('.out', '.err', '.moments')
  )
  seconds = time.monotonic() - began
  return vars(Ended(status, out, err, moments.splitlines(), seconds))


def _main() -> None:
  import warnings

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of forking: no backend of JAX has started here
    import matplotlib.pyplot  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorboardX  # noqa: F401

    import vit_jax.train  # noqa: F401
    from vit_jax import main
    from vit_jax.command_line import run_cli
    from vit_jax.training import loop  # noqa: F401

    attempt = _serve(pathlib.Path(sys.argv[1]))
  if attempt:
    run_cli(lambda: main.main(attempt.words))


if __name__ == '__main__':
  _main()
