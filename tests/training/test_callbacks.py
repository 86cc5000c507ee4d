"""Plateaus and early stopping, validation by validation."""

import json

import pytest

from vit_jax.config import EarlyStopping, Plateau
from vit_jax.errors import UserError
from vit_jax.training.callbacks import Watch


def _losses(watch, *values):
  return [
    (watch.update({'loss': v, 'accuracy': 1 - v}), watch.scale, watch.stop)[1:] for v in values
  ]


def test_the_rate_falls_after_patience_and_stops_at_the_floor():
  watch = Watch(Plateau(factor=0.5, patience=2, delta=0.1, floor=0.3), EarlyStopping())
  # 0.95 is no improvement by 0.1; the count starts again after each cut.
  scales = [scale for scale, _ in _losses(watch, 1.0, 0.95, 0.91, 0.7, 0.7, 0.7, 0.7, 0.7)]
  assert scales == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]
  assert not watch.stop


def test_training_ends_after_patience():
  watch = Watch(Plateau(), EarlyStopping(patience=3))
  stops = [stop for _, stop in _losses(watch, 0.5, 0.6, 0.4, 0.4, 0.5, 0.4)]
  assert stops == [False, False, False, False, False, True]
  assert watch.scale == 1


def test_the_state_is_json_and_goes_on():
  options = Plateau(factor=0.1, patience=2), EarlyStopping(patience=4, metric='loss', mode='min')
  values = [0.5, 0.6, 0.7, 0.3, 0.4, 0.4, 0.4, 0.4]
  whole = Watch(*options)
  expected = _losses(whole, *values)
  for cut in range(len(values)):
    before, after = Watch(*options), Watch(*options)
    seen = _losses(before, *values[:cut])
    after.set_state(json.loads(json.dumps(before.get_state())))
    assert seen + _losses(after, *values[cut:]) == expected


def test_an_unknown_metric_names_those_there_are():
  with pytest.raises(UserError, match="plateau.metric='los' is not .*: there are loss, accuracy"):
    Watch(Plateau(factor=0.5, metric='los'), EarlyStopping()).update({'loss': 1, 'accuracy': 0})
