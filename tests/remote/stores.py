"""A store in memory that fails on demand, and runs that look like real ones."""

import errno
import json
import time

from fsspec.implementations.memory import MemoryFileSystem

from vit_jax.checkpoint import checksums


class Flaky(MemoryFileSystem):
  """fsspec's store in memory as `flaky://`, which notes what is sent and may refuse.

  Attributes:
    log: ('put' or 'rm', path) in order.
    refuses: called with those; whether the store fails then.
  """

  protocol = 'flaky'
  store: dict = {}
  pseudo_dirs = ['']  # noqa: RUF012  as the class that it is of has them
  log: list = []
  refuses = staticmethod(lambda what, path: False)

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.replace('flaky://', 'memory://'))

  def _does(self, what, path):
    path = self._strip_protocol(path)
    if type(self).refuses(what, path):
      raise OSError(errno.ENETDOWN, 'the network is down')
    type(self).log.append((what, path))

  def put_file(self, lpath, rpath, *args, **kwargs):
    self._does('put', rpath)
    return super().put_file(lpath, rpath, *args, **kwargs)

  def get_file(self, rpath, lpath, *args, **kwargs):
    self._does('get', rpath)
    return super().get_file(rpath, lpath, *args, **kwargs)

  def rm_file(self, path):
    self._does('rm', path)
    return super()._rm(path)


def write_checkpoint(workdir, step, content='weights'):
  """A complete checkpoint, made in another folder and then renamed, as orbax does."""
  folder = workdir / 'checkpoints' / f'{step}.orbax-checkpoint-tmp'
  for item in ('variables', 'training'):
    (folder / item / 'd').mkdir(parents=True)
    (folder / item / 'd' / 'data').write_text(f'{content} {step}')
  (folder / 'meta').mkdir()
  meta = {'step': step, 'format_version': 1, 'config': {}, 'model': {}, 'classes': []}
  (folder / 'meta' / 'metadata').write_text(json.dumps(meta | {'preprocess': {}, 'metrics': {}}))
  checksums.write(folder)
  folder.rename(folder.with_name(str(step)))


def tree(folder):
  """{path: content} of the files in a folder, without hidden ones."""
  paths = [p for p in folder.rglob('*') if p.is_file() and not p.name.startswith('.')]
  return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def until(condition):
  """Waits for what another thread is to do."""
  end = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < end, 'nothing happened'
    time.sleep(0.01)
