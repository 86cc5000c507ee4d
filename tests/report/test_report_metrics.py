"""Metrics against scikit-learn's, worked by hand, and at the edges."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from tests.report import fakes
from tests.support import raises
from vit_jax.errors import CheckpointError, DatasetError, DivergenceError
from vit_jax.logits import rank_of_label
from vit_jax.report import Collector, Facts, Timing, compute, examples, load_predictions, metrics


def check_against_sklearn(p) -> None:
  """Everything that scikit-learn has too; its own top-k lets the last of equals win."""
  n, k = p.logits.shape
  labels = list(range(k))
  got, table = compute(p), metrics.per_class(p)
  assert got['accuracy'] == sk.accuracy_score(p.labels, p.predicted)
  for top in (3, 5):
    if top < k:
      mirrored = p.logits[:, ::-1]
      want = sk.top_k_accuracy_score(k - 1 - p.labels, mirrored, k=top, labels=labels)
      assert got[f'top{top}'] == pytest.approx(want, abs=1e-12)
    else:
      assert f'top{top}' not in got
  present = np.unique(p.labels)
  for name, score in (
    ('macro_f1', sk.f1_score),
    ('macro_precision', sk.precision_score),
    ('balanced_accuracy', sk.recall_score),
  ):
    want = score(p.labels, p.predicted, labels=present, average='macro', zero_division=0)
    assert got[name] == pytest.approx(want, abs=1e-12)
  want = sk.f1_score(p.labels, p.predicted, average='weighted', zero_division=0)
  assert got['weighted_f1'] == pytest.approx(want, abs=1e-12)
  probabilities = np.exp(p.logits - p.logits.max(1, keepdims=True)).astype(np.float64)
  probabilities /= probabilities.sum(1, keepdims=True)
  np.testing.assert_allclose(p.probabilities, probabilities, atol=1e-6)
  assert got['nll'] == pytest.approx(sk.log_loss(p.labels, probabilities, labels=labels), abs=1e-6)
  counts = metrics.confusion_counts(p)
  np.testing.assert_array_equal(counts, sk.confusion_matrix(p.labels, p.predicted, labels=labels))
  np.testing.assert_array_equal(table.support, counts.sum(1))
  np.testing.assert_array_equal(table.predicted, counts.sum(0))
  assert np.isnan(table.recall[table.support == 0]).all()


@pytest.mark.parametrize('n, k', [(211, 7), (97, 2), (53, 13), (31, 5)])
def test_random_predictions_equal_sklearn(n, k):
  check_against_sklearn(fakes.random(n, k))


def test_an_absent_class_equals_sklearn_and_is_excluded_from_means():
  labels = np.arange(97) % 6 + 1  # class 0 has no image, but predictions
  p = fakes.random(97, 7, labels=labels, skill=0.5)
  assert (p.predicted == 0).any()
  check_against_sklearn(p)
  assert compute(p)['classes_present'] == 6


def test_ties_go_to_the_first_class_as_in_training():
  logits = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [2, 2, 2, 1], [2, 2, 2, 1]]
  p = fakes.predictions([0, 1, 3, 2, 3], logits, classes='abcd')
  np.testing.assert_array_equal(p.predicted, [0, 0, 0, 0, 0])
  np.testing.assert_array_equal(p.ranks, [0, 1, 3, 2, 3])
  in_training = rank_of_label(jnp.array(p.logits), jnp.array(p.labels))
  np.testing.assert_array_equal(p.ranks, in_training)
  assert compute(p)['accuracy'] == 1 / 5 and compute(p)['top3'] == 3 / 5
  check_against_sklearn(p)


def test_a_single_example_equals_sklearn():
  p = fakes.predictions([2], [[0.0, 1.0, 3.0]])
  check_against_sklearn(p)
  got = compute(p)
  assert got['accuracy'] == 1.0 and got['accuracy_interval'][0] == pytest.approx(0.2065, abs=1e-4)
  check_against_sklearn(fakes.predictions([0], [[0.0, 1.0, 3.0]]))


def test_wilson_by_hand():
  # Newcombe 1998, table I: 81 of 263.
  low, high = metrics.wilson(81, 263)
  assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
  assert metrics.wilson(0, 20)[0] == 0.0 and metrics.wilson(20, 20)[1] == 1.0


def test_calibration_by_hand_and_as_sklearn_bins():
  # Confidences 0.9 (three, two right) and 0.6 (two, one right).
  logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.4, 0.6]])
  p = fakes.predictions([0, 1, 1, 0, 0], logits, classes='ab')
  got = metrics.calibration(p, bins=10)
  assert got.counts.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 3, 0]  # a bin holds its upper edge
  assert got.ece == pytest.approx((2 * 0.1 + 3 * (0.9 - 2 / 3)) / 5, abs=1e-6)
  assert got.worst == pytest.approx(0.9 - 2 / 3, abs=1e-6)
  p = fakes.random(199, 5, skill=2.0)
  got = metrics.calibration(p)
  accuracy, confidence = sk_calibration.calibration_curve(p.correct, p.confidence, n_bins=15)
  np.testing.assert_allclose(got.accuracy[got.counts > 0], accuracy, atol=1e-12)
  np.testing.assert_allclose(got.confidence[got.counts > 0], confidence, atol=1e-6)


def test_mean_probability_and_pairs_by_hand():
  shares = [[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.5, 0.0001], [0.1, 0.8, 0.1]]
  p = fakes.predictions([0, 0, 1, 1], np.log(shares))
  mean = metrics.confusion_probability(p)
  np.testing.assert_allclose(mean[:2], [[0.4, 0.5, 0.1], [0.3, 0.65, 0.05]], atol=1e-4)
  assert np.isnan(mean[2]).all()
  pairs = metrics.confused_pairs(metrics.confusion_counts(p), mean)
  seen = [(q.true, q.predicted, q.count, q.share) for q in pairs]
  assert seen == [(0, 1, 1, 0.5), (1, 0, 1, 0.5)]
  assert examples.lowest_f1(p, metrics.per_class(p), 5) == [0, 1]


def test_sigmoid_models_have_a_probability_for_each_class():
  p = fakes.predictions(
    [0, 1], [[0.0, -1.0], [2.0, 1.0]], 'ab', facts=Facts('s', activation='sigmoid')
  )
  np.testing.assert_allclose(p.probabilities[0], [0.5, 1 / (1 + np.e)], atol=1e-6)
  assert 'nll' not in compute(p)


class _Examples:
  def __init__(self, n):
    self.n = n

  def __len__(self):
    return self.n

  def id(self, i):
    return f'image {i}' if i != 5 else 'caf\udce9'  # a byte that is no UTF-8


def test_the_collector_drops_masked_rows_and_restores_the_order(monkeypatch):
  p = fakes.random(11, 5)
  collector = Collector(_Examples(13), p.classes)
  order = np.random.default_rng(1).permutation(11)
  for part in (order[:7], order[7:]):
    pad = 7 - len(part)
    rows = np.concatenate([part, np.zeros(pad, int)])
    logits = p.logits[rows].copy()
    logits[len(part) :] = np.nan  # padding may hold anything
    mask = np.arange(7) < len(part)
    collector({'index': rows, 'label': p.labels[rows], 'mask': mask}, logits)
  got = collector.predictions()
  np.testing.assert_array_equal(got.logits, p.logits)
  np.testing.assert_array_equal(got.labels, p.labels)
  assert (got.ids[3], got.ids[5]) == ('image 3', 'caf\\udce9')
  assert got.skipped == 2 and got.img_sec > 0
  check_against_sklearn(got)


def test_the_rate_of_an_evaluation_is_without_its_first_batch(monkeypatch):
  """3 images while the step compiles, 40 s; then 3 and 1 in 2 s. A single batch has it all."""
  clock = [100.0]
  monkeypatch.setattr('vit_jax.report.collect.time.monotonic', lambda: clock[0])
  timing = Timing()
  for seconds, images, rate in ((40.0, 3, 3 / 40), (1.5, 3, 2.0), (0.5, 1, 2.0)):
    clock[0] += seconds
    timing({'mask': np.arange(3) < images}, None)
    assert timing.rate() == pytest.approx(rate)
  assert timing.seconds == pytest.approx(42)


def test_an_evaluation_of_nothing_is_refused():
  with raises(DatasetError, 'no image'):
    Collector(_Examples(0), 'ab').predictions()


def test_predictions_survive_a_file(tmp_path):
  boxes = np.random.default_rng(0).random((11, 4)).astype(np.float32)
  facts = Facts('run', config={'a': {'b': [1, 2]}}, image_size=(224, 160), step=7)
  p = fakes.random(11, 5, facts=facts, seconds=2.5, skipped=1, boxes_cxcywh=boxes)
  p.save(tmp_path / 'p.npz')
  got = load_predictions(tmp_path / 'p.npz')
  assert (got.ids, got.classes, got.facts) == (p.ids, p.classes, p.facts)
  assert (got.seconds, got.skipped, got.img_sec) == (2.5, 1, None)
  np.testing.assert_array_equal(got.logits, p.logits)
  np.testing.assert_array_equal(got.boxes_cxcywh, boxes)
  (tmp_path / 'p.npz').write_bytes(b'PK broken')
  with raises(CheckpointError, tmp_path / 'p.npz'):
    load_predictions(tmp_path / 'p.npz')


def test_what_cannot_be_reported_is_refused():
  with raises(DivergenceError, '1 of 2 images'):
    fakes.predictions([0, 1], [[0, 1, 2], [0, np.nan, 1]])
  with raises(DatasetError, '1 of 2 images', 'the 3 classes'):
    fakes.predictions([0, -1], [[0, 1, 2], [0, 2, 1]])
  with raises(DatasetError, 'logits (2, 2)'):
    fakes.predictions([0, 1], [[0, 1], [1, 0]])


def test_names_lose_wordnet_ids_unless_two_become_one():
  p = fakes.predictions([0], [[0, 1, 2]], ('n02085620-Chihuahua', 'n01_crane', 'sea_slug'))
  assert p.names == ('Chihuahua', 'n01 crane', 'sea slug')
  p = fakes.predictions([0], [[0, 1, 2]], ('n02012849_crane', 'n03126707_crane', 'x'))
  assert p.names == ('n02012849_crane', 'n03126707_crane', 'x')
