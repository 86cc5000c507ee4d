"""metrics.jsonl: rows are whole, whatever became of the end of the file."""

import errno
import json

import pytest

from tests.support import raises
from vit_jax.errors import StorageError
from vit_jax.metric_writer import MetricWriter, read_metrics


@pytest.fixture
def written(tmp_path):
  """(folder, state) of an attempt of 300 rows."""
  writer = MetricWriter(tmp_path, tensorboard=False)
  for step in range(1, 301):
    writer.write(step, 'train', {'loss': 1 / step, 'seconds': step})
  writer.close()
  return tmp_path, json.loads(json.dumps(writer.get_state()))


@pytest.mark.parametrize(
  'damage',
  [
    lambda text: text,
    lambda text: text[:-1],
    lambda text: text[:-20],
    lambda text: text + b'\0' * 512,
    lambda text: text[: len(text) // 2] + b'\n',
    lambda text: text + b''.join(text.splitlines(keepends=True)[-7:]),
    lambda text: text[:-30] + b'{"step": 300, "split": "train"}\n[1]\n7\n{"a": 1}\n',
    lambda text: text + b'{"step": 301, "split": "train", "loss": 9}\n\xff\xfe\n',
    lambda text: text[:9000] + b'\0' * (len(text) - 9000),
  ],
)
def test_resuming_mends_the_end_of_the_file(written, damage):
  folder, state = written
  path = folder / 'metrics.jsonl'
  whole = path.read_bytes()
  path.write_bytes(damage(whole))
  writer = MetricWriter(folder, tensorboard=False, resume_step=300, state=state)
  assert path.read_bytes() == whole and writer.last('seconds') == 300
  writer.write(301, 'val', {'loss': float('nan')})
  assert read_metrics(folder)[-1] == {'step': 301, 'split': 'val', 'loss': None}
  assert writer.get_state()['count'] == 301


def test_first_rows_that_are_lost_are_said(written, caplog):
  folder, state = written
  (folder / 'metrics.jsonl').unlink()
  MetricWriter(folder, tensorboard=False, resume_step=300, state=state)
  assert 'metrics.jsonl' in caplog.text and '100' in caplog.text
  assert [row['step'] for row in read_metrics(folder)] == list(range(101, 301))


def test_a_start_over_rows_of_an_attempt_without_checkpoint_is_said(written, caplog):
  folder, _ = written
  MetricWriter(folder, tensorboard=False)
  assert str(folder) in caplog.text and 'no checkpoint' in caplog.text


def test_a_folder_that_vanished_is_one_line(tmp_path):
  writer = MetricWriter(tmp_path / 'gone', tensorboard=False)
  with raises(StorageError, 'gone'):
    writer.write(1, 'train', {'loss': 1.0})


def test_a_file_that_vanished_is_not_begun_anew(written):
  folder, state = written
  resumed = MetricWriter(folder, tensorboard=False, resume_step=300, state=state)
  (folder / 'metrics.jsonl').unlink()  # with its folder, say, which a checkpoint then made again
  with raises(StorageError, 'metrics.jsonl', 'vanished'):
    resumed.write(301, 'train', {'loss': 0.1})
  assert not (folder / 'metrics.jsonl').exists()


def test_an_event_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
  from tensorboardX.record_writer import RecordWriter

  writer = MetricWriter(tmp_path, tensorboard=True)

  def fail(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(RecordWriter, 'write', fail)
  monkeypatch.setattr(RecordWriter, 'flush', fail)
  for step in range(40):  # the queue of SummaryWriter took ten and then waited for ever
    with raises(StorageError, tmp_path, 'tfevents', 'No space left'):
      writer.write(step, 'train', {'loss': 1.0})
  with raises(StorageError, tmp_path, 'tfevents'):
    writer.flush()
  writer.close()
  assert [row['step'] for row in read_metrics(tmp_path)] == list(range(40))
