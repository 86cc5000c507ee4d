"""Callbacks of validation: ReduceLROnPlateau and early stopping."""

import logging
import math
from collections.abc import Mapping

from vit_jax.config import EarlyStopping, Plateau
from vit_jax.errors import ConfigError, counted
from vit_jax.tasks import metric_text

log = logging.getLogger(__name__)


class _Patience:
  """Counts validations since a metric last improved."""

  def __init__(self, option: str, metric: str, mode: str, delta: float):
    self._option, self._metric, self._delta = option, metric, delta
    self._sign = 1.0 if mode == 'max' else -1.0
    self.best: float | None = None
    self.waited = 0

  def update(self, metrics: Mapping[str, float]) -> None:
    if self._metric not in metrics:
      raise ConfigError(
        f'config.{self._option}.metric={self._metric!r} is not a validation metric: there are '
        f'{", ".join(metrics)}'
      )
    value = metrics[self._metric]
    if self.best is None or self._sign * (value - self.best) > self._delta:
      self.best, self.waited = value, 0
    else:
      self.waited += 1


class Callbacks:
  """Sees every validation; its state is saved in checkpoints.

  Args:
    plateau: options of ReduceLROnPlateau.
    stopping: options of early stopping.

  Attributes:
    lr_multiplier: of the scheduled learning rate.
  """

  def __init__(self, plateau: Plateau, stopping: EarlyStopping):
    self._plateau = plateau if plateau.factor < 1 else None
    self._stopping = stopping if stopping.patience else None
    self._stalled = _Patience('plateau', plateau.metric, plateau.mode, plateau.delta)
    self._ended = _Patience('early_stopping', stopping.metric, stopping.mode, stopping.delta)
    self.lr_multiplier = 1.0

  @property
  def active(self) -> bool:
    """Whether any callback needs validation metrics."""
    return bool(self._plateau or self._stopping)

  @property
  def stop(self) -> bool:
    """Whether training should end."""
    return self._stopping is not None and self._ended.waited >= self._stopping.patience

  def update(self, metrics: Mapping[str, float]) -> None:
    """Takes the metrics of one validation."""
    if self._plateau:
      self._reduce(self._plateau, metrics)
    if self._stopping:
      self._ended.update(metrics)
      if self.stop and self._ended.best is not None:
        log.info(
          'early stopping: validation %s did not improve on %s in %s',
          self._stopping.metric,
          metric_text(self._stopping.metric, self._ended.best),
          counted(self._stopping.patience, 'validation'),
        )

  def _reduce(self, plateau: Plateau, metrics: Mapping[str, float]) -> None:
    self._stalled.update(metrics)
    if self._stalled.waited < plateau.patience:
      return
    self._stalled.waited = 0
    multiplier = max(plateau.floor, self.lr_multiplier * plateau.factor)
    if not math.isclose(multiplier, self.lr_multiplier) and self._stalled.best is not None:
      self.lr_multiplier = multiplier
      log.info(
        'validation %s is at a plateau of %s: learning-rate multiplier %.4g',
        plateau.metric,
        metric_text(plateau.metric, self._stalled.best),
        multiplier,
      )

  def get_state(self) -> dict:
    """JSON values."""
    return {
      'scale': self.lr_multiplier,
      'stalled': [self._stalled.best, self._stalled.waited],
      'ended': [self._ended.best, self._ended.waited],
    }

  def set_state(self, state: Mapping) -> None:
    """The inverse of `get_state`."""
    self.lr_multiplier = state['scale']
    self._stalled.best, self._stalled.waited = state['stalled']
    self._ended.best, self._ended.waited = state['ended']
