"""ReduceLROnPlateau and early stopping, validation by validation."""

import json

from tests.support import raises
from vit_jax.config import EarlyStopping, Plateau
from vit_jax.errors import ConfigError
from vit_jax.training.callbacks import Callbacks


def _update(callbacks, *losses):
  """(learning-rate multiplier, whether to stop) after each validation."""
  found = []
  for loss in losses:
    callbacks.update({'loss': loss, 'accuracy': 1 - loss})
    found.append((callbacks.lr_multiplier, callbacks.stop))
  return found


def test_the_rate_is_reduced_after_patience_down_to_the_floor():
  callbacks = Callbacks(Plateau(factor=0.5, patience=2, delta=0.1, floor=0.3), EarlyStopping())
  # 0.95 is no improvement by 0.1; the count starts again after each reduction.
  found = _update(callbacks, 1.0, 0.95, 0.91, 0.7, 0.7, 0.7, 0.7, 0.7)
  assert [multiplier for multiplier, _ in found] == [1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]
  assert callbacks.active and not callbacks.stop


def test_training_stops_after_patience():
  callbacks = Callbacks(Plateau(), EarlyStopping(patience=3))
  found = _update(callbacks, 0.5, 0.6, 0.4, 0.4, 0.5, 0.4)
  assert [stop for _, stop in found] == [False, False, False, False, False, True]
  assert callbacks.active and callbacks.lr_multiplier == 1


def test_by_default_neither_acts():
  callbacks = Callbacks(Plateau(), EarlyStopping())
  assert _update(callbacks, *[1.0] * 9)[-1] == (1.0, False)
  assert not callbacks.active


def test_the_state_is_json_and_resumes():
  options = Plateau(factor=0.1, patience=2), EarlyStopping(patience=4, metric='loss', mode='min')
  values = [0.5, 0.6, 0.7, 0.3, 0.4, 0.4, 0.4, 0.4]
  expected = _update(Callbacks(*options), *values)
  for cut in range(len(values)):
    before, after = Callbacks(*options), Callbacks(*options)
    seen = _update(before, *values[:cut])
    after.set_state(json.loads(json.dumps(before.get_state())))
    assert seen + _update(after, *values[cut:]) == expected


def test_an_unknown_metric_lists_those_there_are():
  with raises(ConfigError, 'config.plateau.metric', "'los'", 'loss, accuracy'):
    _update(Callbacks(Plateau(factor=0.5, metric='los'), EarlyStopping()), 1.0)
  with raises(ConfigError, 'config.early_stopping.metric', "'top5'", 'loss, accuracy'):
    _update(Callbacks(Plateau(), EarlyStopping(patience=1, metric='top5')), 1.0)
