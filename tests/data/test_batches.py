"""Batches: the same whoever makes them, and exact after a restart."""

import contextlib
import gc
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from vit_jax.data import Prefetch, eval_batches, open_dataset, parse_transform, train_batches
from vit_jax.errors import CheckpointError, ConfigError, ImageError

TRAIN = parse_transform('decode|inception_crop(5)|flip_lr', train=True)
EVAL = parse_transform('decode|resize(5)')
COUNT = 23
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def examples(tmp_path):
  """23 images of noise in 2 classes."""
  rng = np.random.default_rng(0)
  for i in range(COUNT):
    folder = tmp_path / 'set' / 'ab'[i % 2]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (11, 13, 3), np.uint8)).save(folder / f'{i:02d}.png')
  return open_dataset(str(tmp_path / 'set'), split_fractions=(1, 0, 0)).split('train')


def spoil(examples, *indices):
  for i in indices:
    with open(examples[i]['path'], 'r+b') as f:
      f.truncate(60)


def take(count, examples, state=None, transform=TRAIN, **kwargs):
  options = {'batch_size': 7, 'seed': 3, 'threads': 0, **kwargs}
  with train_batches(examples, transform, **options) as batches:
    if state is not None:
      batches.set_state(state)
    return [next(batches) for _ in range(count)]


def assert_same(got, expected):
  assert len(got) == len(expected)
  for a, b in zip(got, expected):
    assert sorted(a) == sorted(b)
    for key in a:
      assert a[key].dtype == b[key].dtype
      np.testing.assert_array_equal(a[key], b[key])


def test_shapes_and_kinds(examples):
  batch = take(1, examples)[0]
  assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
    'image': ((7, 5, 5, 3), 'uint8'),
    'label': ((7,), 'int32'),
    'index': ((7,), 'int64'),
  }
  np.testing.assert_array_equal(batch['label'], examples.labels[batch['index']])


def test_every_epoch_is_a_fresh_permutation(examples):
  seen = np.concatenate([b['index'] for b in take(10, examples)])
  epochs = [seen[i * COUNT : (i + 1) * COUNT] for i in range(3)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(COUNT))
  assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_crops_differ_between_epochs(examples):
  batches = take(8, examples)
  first = {}
  repeats = same = 0
  for batch in batches:
    for index, image in zip(batch['index'], batch['image']):
      repeats += index in first
      same += index in first and (first[index] == image).all()
      first.setdefault(index, image)
  assert repeats > 20 and same == 0


@pytest.mark.parametrize(
  'options',
  [
    {'threads': 3, 'prefetch_bytes': 0},  # pieces of one image
    {'threads': 2, 'prefetch_bytes': 75 * 40},
    {'threads': 1, 'workers': 2, 'prefetch_bytes': 75 * 40},
  ],
)
def test_batches_are_the_same_whatever_is_loaded_ahead(examples, options):
  spoil(examples, 5)
  expected = take(3, examples, batch_size=53, on_error='skip')
  assert_same(take(3, examples, batch_size=53, on_error='skip', **options), expected)


class Counted:
  """Examples that count how often one was read."""

  def __init__(self, examples):
    self._examples, self.reads = examples, 0

  def __len__(self):
    return len(self._examples)

  def __getitem__(self, index):
    self.reads += 1
    return self._examples[index]

  def place(self, index):
    return self._examples.place(index)


def test_what_is_loaded_ahead_is_bounded_in_bytes(examples):
  """An image is 75 bytes: of 1,500, pieces of 7 images for two threads, 2 x 7 x 75 = 1,050, fit."""
  counted = Counted(examples)
  options = {'batch_size': 7, 'seed': 3, 'threads': 2, 'prefetch_bytes': 1500}
  with train_batches(counted, TRAIN, **options) as batches:
    for number in (1, 2, 3):
      next(batches)
      end = time.monotonic() + 20
      while counted.reads < 7 * number + 14 and time.monotonic() < end:
        time.sleep(0.01)
      time.sleep(0.05)
      assert counted.reads == 7 * number + 14


def test_how_much_is_loaded_ahead_of_large_batches():
  image = 224 * 224 * 3
  found = Prefetch.choose((224, 224), 4096, threads=64)
  assert (found.rows, found.pieces) == (32, 2**30 // (32 * image)) == (32, 222)
  # 7,104 images reach into a third batch, and one is in use.
  assert found.host_bytes == 4 * 4096 * image
  # Two batches of two pieces each and a piece for each thread; then at least that last.
  assert Prefetch.choose((224, 224), 64, threads=5).examples == (2 * 2 + 5) * 32
  assert Prefetch.choose((224, 224), 64, threads=5, limit_bytes=0).examples == 5
  assert Prefetch.choose((224, 224), 64, threads=0).examples == 0


def test_batches_are_made_again_and_go_on_after_a_pause(examples):
  expected = take(4, examples)
  with train_batches(examples, TRAIN, batch_size=7, seed=3, threads=2) as batches:
    got = [next(batches), next(batches)]
    assert_same([batches.again(1), batches.again(0)], got)
    batches.close()
    assert_same([*got, next(batches), next(batches)], expected)


def test_seeds_draw_differently(examples):
  a, b, again = (take(1, examples, seed=s)[0] for s in (1, 2, 1))
  assert (a['index'] != b['index']).any()
  assert_same([a], [again])


@pytest.mark.parametrize('kwargs', [{'threads': 0}, {'threads': 3}, {'threads': None}])
def test_resuming_is_bit_for_bit(examples, kwargs):
  expected = take(9, examples)
  for stop in (0, 1, 5):
    with train_batches(examples, TRAIN, batch_size=7, seed=3, **kwargs) as batches:
      got = [next(batches) for _ in range(stop)]
      state = json.loads(json.dumps(batches.get_state()))
    assert state['position'] == 7 * stop
    assert_same(got + take(9 - stop, examples, state, **kwargs), expected)


def test_setting_back_a_running_iterator(examples):
  with train_batches(examples, TRAIN, batch_size=7, seed=3, threads=2) as batches:
    next(batches)
    state = batches.get_state()
    expected = [next(batches) for _ in range(3)]
    batches.set_state(state)
    assert_same([next(batches) for _ in range(3)], expected)


def test_worker_processes_give_the_same(examples):
  expected = take(6, examples)
  with train_batches(examples, TRAIN, batch_size=7, seed=3, threads=1, workers=2) as batches:
    got = [next(batches) for _ in range(2)]
    state = batches.get_state()
  assert_same(got + take(4, examples, state, threads=1, workers=1), expected)


@pytest.mark.parametrize('count', [2, 3])
def test_processes_share_the_global_batch_in_order(examples, count):
  whole = take(4, examples, batch_size=6)
  parts = [
    take(4, examples, batch_size=6 // count, process_index=i, process_count=count)
    for i in range(count)
  ]
  joined = [{k: np.concatenate([p[n][k] for p in parts]) for k in whole[0]} for n in range(4)]
  assert_same(joined, whole)


def test_another_batch_size_resumes_at_the_same_image(examples):
  flat = np.concatenate([b['image'] for b in take(6, examples)])
  with train_batches(examples, TRAIN, batch_size=7, seed=3, threads=0) as batches:
    next(batches)
    state = batches.get_state()
  after = np.concatenate([b['image'] for b in take(7, examples, state, batch_size=5)])
  np.testing.assert_array_equal(after, flat[7:42])


def test_a_state_of_other_data_is_refused(examples):
  with train_batches(examples, TRAIN, batch_size=7, seed=3, threads=0) as batches:
    state = batches.get_state()
    with raises(CheckpointError, 'examples=22', 23):
      batches.set_state({**state, 'examples': 22})
    with raises(CheckpointError, 'seed=4'):
      batches.set_state({**state, 'seed': 4})


def test_a_dataset_smaller_than_the_batch_is_repeated_within_it(examples):
  batch = take(1, examples, batch_size=53)[0]
  assert set(np.bincount(batch['index'])) == {2, 3}


def test_repeated_augmentation(examples):
  batches = take(2, examples, batch_size=6, repeats=3)
  for batch in batches:
    assert (batch['index'].reshape(2, 3) == batch['index'][::3, None]).all()
    assert (batch['image'][0] != batch['image'][1]).any()
  assert len({int(i) for b in batches for i in b['index']}) == 4


def test_an_unreadable_image_raises_its_own_error(examples):
  spoil(examples, 5)
  for kwargs in ({'threads': 0}, {'threads': 2}, {'threads': 1, 'workers': 1}):
    with raises(ImageError, f'{examples.id(5)} cannot be decoded'):
      take(4, examples, **kwargs)


def test_an_unreadable_image_is_replaced_by_the_next(examples):
  clean = take(8, examples)
  spoil(examples, 5, 6)
  expected = []
  with train_batches(examples, TRAIN, batch_size=7, seed=3, threads=2, on_error='skip') as batches:
    got = [next(batches) for _ in range(8)]
    counted, state = batches.skipped, batches.get_state()
    assert sorted(batches.unreadable) == sorted([examples.id(5), examples.id(6)])
  indices = np.concatenate([b['index'] for b in clean])
  expected = np.where((indices == 5) | (indices == 6), 7, indices)
  np.testing.assert_array_equal(np.concatenate([b['index'] for b in got]), expected)
  assert counted == 2 * (indices == 5).sum() + (indices == 6).sum()
  with train_batches(examples, TRAIN, batch_size=7, seed=3, on_error='skip') as batches:
    batches.set_state(state)
    assert batches.skipped == counted


def test_the_system_is_told_what_will_be_read(examples, monkeypatch):
  told = []

  def advise(descriptor, start, size, kind):
    told.append((os.fstat(descriptor).st_ino, start, size, kind))

  monkeypatch.setattr(os, 'posix_fadvise', advise, raising=False)
  monkeypatch.setattr(os, 'POSIX_FADV_WILLNEED', 3, raising=False)
  numbers = {os.stat(examples.path(i)).st_ino: i for i in range(COUNT)}
  for batch in take(2, examples):
    ahead, told[:] = told[:7], told[7:]
    assert [numbers[number] for number, *_ in ahead] == list(batch['index'])
    assert {tuple(rest) for _, *rest in ahead} == {(0, 0, 3)}
  os.unlink(examples.path(3))  # it is said when it is read
  assert len(list(eval_batches(examples, EVAL, batch_size=9, threads=0, on_error='skip'))) == 3
  assert len(told) == COUNT - 1
  expected = take(2, examples.take(np.arange(3)))
  monkeypatch.delattr(os, 'posix_fadvise')
  assert_same(take(2, examples.take(np.arange(3))), expected)


def test_when_nothing_can_be_read(examples):
  spoil(examples, *range(COUNT))
  with raises(ImageError, 'none of the 23 images', 'cannot be decoded'):
    take(1, examples, on_error='skip')


@pytest.mark.parametrize('threads', [0, 2])
@pytest.mark.parametrize('processes', [1, 2, 5])
def test_evaluation_counts_every_example_once(examples, threads, processes):
  lengths, seen = [], []
  for p in range(processes):
    batches = eval_batches(
      examples, EVAL, batch_size=3, process_index=p, process_count=processes, threads=threads
    )
    found = list(batches)
    assert len(found) == len(batches)
    lengths.append(len(found))
    for batch in found:
      assert batch['image'].shape == (3, 5, 5, 3) and batch['mask'].dtype == bool
      assert not batch['image'][~batch['mask']].any()
      seen += list(batch['index'][batch['mask']])
      np.testing.assert_array_equal(
        batch['label'][batch['mask']], examples.labels[batch['index'][batch['mask']]]
      )
  assert len(set(lengths)) == 1
  assert sorted(seen) == list(range(COUNT))


def test_evaluation_may_run_again_and_stop_early(examples):
  batches = eval_batches(examples, EVAL, batch_size=5, threads=2)
  for batch in batches:
    first = batch
    break
  assert_same([first], list(batches)[:1])


def test_evaluation_masks_what_cannot_be_read(examples):
  spoil(examples, 4, 22)
  batches = eval_batches(examples, EVAL, batch_size=5, on_error='skip')
  for _ in range(2):
    masks = np.concatenate([b['mask'] for b in batches])
    assert list(np.flatnonzero(~masks)) == [4, 22, 23, 24]
    assert batches.skipped == 2 and len(batches.unreadable) == 2
  with raises(ImageError, examples.id(4)):
    list(eval_batches(examples, EVAL, batch_size=5))


def test_threads_end_quietly(examples):
  batches = train_batches(examples, TRAIN, batch_size=7, seed=3, threads=2)
  next(batches)
  del batches
  gc.collect()


@pytest.mark.parametrize(
  'kwargs, facts',
  [
    ({'batch_size': 0}, ['batch size', 'at least 1', 0]),
    ({'process_index': 2, 'process_count': 2}, ['process', 2]),
    ({'on_error': 'ignore'}, ["'raise' or 'skip'", 'ignore']),
    ({'repeats': 0}, ['repeats', 0]),
    ({'workers': -1}, ['workers', -1]),
  ],
)
def test_mistakes(examples, kwargs, facts):
  with raises(ConfigError, *facts):
    take(1, examples, **kwargs)


def test_varying_sizes_make_no_batch(examples):
  transform = parse_transform('decode|resize_small(5)', fixed_size=False)
  with raises(ConfigError, 'varying size', 'resize_small(5)'):
    take(1, examples, transform=transform)


HOLD = """
import multiprocessing, time
from vit_jax import data

if __name__ == '__main__':
  examples = data.open_dataset('digits').split('train')
  transform = data.parse_transform('decode|resize(4)', train=True)
  batches = data.train_batches(examples, transform, batch_size=4, seed=0, threads=1, workers=1)
  next(batches)
  print(*[child.pid for child in multiprocessing.active_children()], flush=True)
  time.sleep(60)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
  (tmp_path / 'hold.py').write_text(HOLD)
  parent = subprocess.Popen(
    [sys.executable, str(tmp_path / 'hold.py')],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  workers = [int(word) for word in parent.stdout.readline().split()]
  parent.kill()
  parent.communicate()
  assert workers
  end = time.monotonic() + 20
  while any(_runs(pid) for pid in workers):
    assert time.monotonic() < end
    time.sleep(0.05)


def _runs(pid):
  with contextlib.suppress(OSError):  # a process that ended may wait to be reaped
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
  try:
    os.kill(pid, 0)
  except OSError:
    return False
  return not pathlib.Path('/proc/self/stat').exists()
