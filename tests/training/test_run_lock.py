"""Two runs never work in one folder."""

import subprocess
import sys

import pytest

from tests.support import raises
from vit_jax.errors import StorageError
from vit_jax.training.run_lock import run_lock

HOLD = """
import pathlib, sys, time
from vit_jax.training.run_lock import run_lock
with run_lock(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(60)
"""


def test_another_process_is_named_and_its_end_frees_the_folder(tmp_path):
  holder = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  try:
    assert holder.stdout.readline() == 'held\n'
    with raises(StorageError, str(tmp_path), str(holder.pid), '--workdir'), run_lock(tmp_path):
      pass
  finally:
    holder.kill()
    holder.communicate()
  with run_lock(tmp_path):
    pass


def test_the_same_process_is_refused_too(tmp_path):
  with run_lock(tmp_path), raises(StorageError, str(tmp_path)), run_lock(tmp_path):
    pytest.fail('two runs in one folder')
  with run_lock(tmp_path):
    pass


def test_what_an_odd_lock_file_says_does_not_matter(tmp_path):
  (tmp_path / '.lock').write_text('[1')
  with run_lock(tmp_path):
    pass
