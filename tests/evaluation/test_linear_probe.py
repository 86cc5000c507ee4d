"""Logistic regression on frozen features, against scikit-learn and by hand; its head in a model."""

import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax.data import Preprocess
from vit_jax.errors import DatasetError
from vit_jax.evaluation import linear_probe
from vit_jax.inference.loaded import Loaded

PREPROCESS = Preprocess('decode|resize(16, 24)')


def clusters(k, n=41, d=7, seed=0, spread=1.5):
  """Features of overlapping clusters, one channel constant and one of another size."""
  rng = np.random.default_rng(seed)
  labels = (np.arange(n) % k).astype(np.int32)
  centres = np.random.default_rng(99).standard_normal((k, d))
  x = centres[labels] + spread * rng.standard_normal((n, d))
  x[:, 2], x[:, 3] = 5.0, 1000 * x[:, 3]
  return x.astype(np.float32), labels


@pytest.mark.parametrize('k', [2, 3])
def test_head_equals_scikit_learns_pipeline(k):
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  x, labels = clusters(k)
  head = linear_probe.fit_head(x, labels, k, c=0.1)
  wanted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=999)).fit(x, labels)
  assert head.kernel.shape == (7, k) and head.bias.shape == (k,)
  exp = np.exp(head(x))
  np.testing.assert_allclose(
    exp / exp.sum(axis=1, keepdims=True), wanted.predict_proba(x), atol=1e-6
  )


def test_penalty_is_the_best_on_val_and_the_same_every_time_by_folds():
  train, val = clusters(3), clusters(3, seed=1)
  head = linear_probe.fit_head(*train, 3, val=val)
  accuracy = [
    linear_probe.score(linear_probe.fit_head(*train, 3, c=c), *val)['accuracy']
    for c in linear_probe.PENALTIES
  ]
  assert linear_probe.score(head, *val)['accuracy'] == pytest.approx(max(accuracy), abs=1.01 / 41)
  folds = [linear_probe.fit_head(*train, 3).c for _ in range(2)]
  assert folds[0] == folds[1] and folds[0] in linear_probe.PENALTIES


def test_score_by_hand():
  head = linear_probe.Head(np.eye(5), np.zeros(5), 1.0)
  x = np.array([[9, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4], [0, 0, 0, 0, 1]], np.float32)
  result = linear_probe.score(head, x, np.array([0, 2, 0, 4]))
  assert result['accuracy'] == 0.5  # the first and the last
  assert result['top3'] == 0.75
  assert result['examples'] == 4
  last = -np.log(np.e / (4 + np.e))
  assert linear_probe.score(head, x[3:], np.array([4]))['loss'] == pytest.approx(last)


@pytest.mark.parametrize(
  'labels, k, c, facts',
  [
    ([0, 0, 2, 2], 3, None, ['1 of 3 classes', 'number 1', '--classes']),
    ([0, 0, 1], 2, None, ['--val', '--c']),
    ([0, 0, 0], 1, 0.1, ['two classes']),
  ],
)
def test_too_few_images(labels, k, c, facts):
  with raises(DatasetError, *facts):
    linear_probe.fit_head(np.eye(len(labels)), np.array(labels), k, c)


@pytest.mark.parametrize('name', ['deit_ti16_distilled', 'resnet50'])
def test_the_model_with_the_head_gives_the_probes_logits(name):
  module = small.build(name)
  loaded = Loaded(module, small.variables(module), {'model': {'name': name}}, (), PREPROCESS)
  images = np.random.default_rng(3).integers(0, 256, (5, 11, 13, 3), np.uint8)
  x = loaded.features(images)
  rng = np.random.default_rng(5)
  head = linear_probe.Head(rng.standard_normal((x.shape[1], 3)), np.array([1.0, 2.0, 3.0]), 1.0)
  new, variables = linear_probe.with_head(loaded, head)
  assert new.num_classes == 3
  logits = Loaded(new, variables, loaded.config, (), PREPROCESS).logits(images)
  np.testing.assert_allclose(logits, head(x), rtol=1e-4, atol=1e-4)
