"""Means over splits: every example once, whatever the batch size and device count."""

import json
import os
import socket
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import raises
from vit_jax import data, parallel, tasks
from vit_jax.errors import DatasetError, ImageError
from vit_jax.evaluation.evaluator import Evaluator, make_eval_step, relabeled, spread
from vit_jax.evaluation.scoring import score

CLASSES = 7
PREPROCESS = data.Preprocess('decode|resize(8)')


class _Oracle(nn.Module):
  """Predicts the class written into the first pixel's red value."""

  @nn.compact
  def __call__(self, images, train=False):
    predicted = jnp.round((images[:, 0, 0, 0] * 0.5 + 0.5) * 255).astype(jnp.int32)
    return jax.nn.one_hot(predicted, CLASSES) * 9.0


@pytest.mark.parametrize('name, batch_size', [('data', 4), ('fsdp', 12), ('pmap', 8), ('data', 52)])
def test_evaluation_counts_every_example_once(name, batch_size):
  """13 of 17 images hold their label, so accuracy is 13/17 at any batch size."""
  n, correct = 17, 13
  labels = np.arange(n, dtype=np.int32) % CLASSES
  predicted = np.where(np.arange(n) < correct, labels, (labels + 1) % CLASSES)
  images = np.zeros((n, 2, 2, 3), np.uint8)
  images[:, 0, 0, 0] = predicted
  batches = []
  for start in range(0, n, batch_size):
    index = np.arange(start, start + batch_size)
    rows = np.minimum(index, n - 1)  # padding repeats the last, which is wrong: it must not count
    batches.append({'image': images[rows], 'label': labels[rows], 'mask': index < n})
  placement = parallel.make(name)
  step = placement.compile_eval(
    make_eval_step(_Oracle(), tasks.build('classify', CLASSES), PREPROCESS)
  )
  seen = []
  result = score(
    step,
    placement,
    placement.put_state({}),
    batches,
    on_batch=lambda b, out: seen.append(out[b['mask']].argmax(-1)),
  )
  assert result['examples'] == n
  assert result['accuracy'] == pytest.approx(correct / n)
  np.testing.assert_array_equal(np.concatenate(seen), predicted)


def _plain(outputs):
  """A placement and a step that gives prepared metrics, one row an example."""
  placement = parallel.make('data', jax.devices()[:1])
  return placement, placement.compile_eval(lambda _, batch: (outputs(batch), batch['label']))


def test_a_metric_may_be_of_some_examples_alone():
  """A pair of values and weights; of no example, it is not known."""
  values, weights = np.array([1.0, 5.0, np.nan, 9.0]), np.array([1.0, 3.0, 0.0, 1.0])
  batch = {'label': np.zeros(4, np.int32), 'value': values, 'weight': weights}
  placement, step = _plain(
    lambda b: {'some': (b['value'], b['weight']), 'none': (b['value'], 0 * b['weight'])}
  )
  mask = np.array([True, True, True, False])  # the last is padding
  found = score(step, placement, placement.put_state({}), [{**batch, 'mask': mask}])
  assert found == {'some': (1 + 3 * 5) / 4, 'examples': 3}


def test_metrics_of_a_split_see_all_examples_without_padding():
  placement, step = _plain(lambda b: {'loss': b['label'] * 1.0})
  labels = np.arange(6, dtype=np.int32).reshape(2, 3)
  mask = np.array([[True, True, True], [True, False, False]])
  seen = {}

  def split_metrics(logits, batch):
    seen.update(logits=logits, **batch)
    return {'largest': float(logits.max())}

  batches = [{'label': row, 'mask': m} for row, m in zip(labels, mask)]
  found = score(step, placement, placement.put_state({}), batches, split_metrics=split_metrics)
  assert found == {'loss': 1.5, 'largest': 3.0, 'examples': 4}
  np.testing.assert_array_equal(seen['logits'], [0, 1, 2, 3])
  np.testing.assert_array_equal(seen['label'], [0, 1, 2, 3])


def test_nothing_to_score_is_an_error():
  placement, step = _plain(lambda b: {'loss': b['label'] * 1.0})
  batch = {'label': np.zeros(2, np.int32), 'mask': np.zeros(2, bool)}
  with raises(DatasetError):
    score(step, placement, placement.put_state({}), [batch])


class _Twos:
  """Examples whose third has no label."""

  def __len__(self):
    return 4

  def id(self, i):
    return f'image {i}'

  def place(self, i):
    return None

  def __getitem__(self, i):
    label = np.int32(-1 if i == 2 else i)
    return {'image': np.full((8, 8, 3), i, np.uint8), 'label': label, 'id': self.id(i), 'index': i}


def test_images_without_a_label_are_refused_not_scored_as_the_last_class():
  placement = parallel.make('data', jax.devices()[:1])
  transform = data.parse_transform('decode|resize(8)', train=False)
  task = tasks.build('classify', CLASSES)
  evaluator = Evaluator(_Oracle(), task, PREPROCESS, placement, transform, 3, {'threads': 0})
  with raises(ImageError, 'image 2'):
    evaluator(_Twos(), placement.put_state({}))


def test_labels_become_the_models_indices():
  """The dataset's classes 0 and 1 are the model's 3 and 1."""
  batch = {'label': np.array([0, 1, -1]), 'labels': np.array([[1, 0], [1, 1], [0, 0]], np.uint8)}
  found = relabeled(batch, np.array([3, 1]), 4)
  np.testing.assert_array_equal(found['label'], [3, 1, -1])
  np.testing.assert_array_equal(found['labels'], [[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['data', 'pmap'])
def test_two_processes_count_every_example_once(name):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  words = [sys.executable, '-m', 'tests.evaluation.two_processes']
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  both = [
    subprocess.Popen(
      [*words, str(i), str(port), name], stdout=subprocess.PIPE, env=environment, text=True
    )
    for i in range(2)
  ]
  for process in both:
    found = json.loads(process.communicate(timeout=300)[0].splitlines()[-1])
    assert (found['processes'], found['told'], found['examples']) == (2, [0, 1], 17)
    assert 'skipped' not in found
    assert found['accuracy'] == pytest.approx(13 / 17)
    assert found['index'] == list(range(17))


@pytest.mark.parametrize(
  'total, largest, size', [(300, 64, 60), (64, 64, 64), (65, 64, 33), (7, 64, 7), (1, 1, 1)]
)
def test_equal_batches_are_hardly_padded(total, largest, size):
  assert spread(total, largest) == size
