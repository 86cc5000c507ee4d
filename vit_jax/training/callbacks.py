"""What validation decides: a lower learning rate where it stalls, and the end of training."""

import math

from vit_jax.config import EarlyStopping, Plateau
from vit_jax.errors import UserError


class _Patience:
  """Counts validations since a metric last got better."""

  def __init__(self, option: str, metric: str, mode: str, delta: float):
    self._option, self._metric, self._delta = option, metric, delta
    self._sign = 1.0 if mode == 'max' else -1.0
    self.best: float | None = None
    self.waited = 0

  def update(self, metrics: dict[str, float]) -> None:
    if self._metric not in metrics:
      raise UserError(
        f'config.{self._option}.metric={self._metric!r} is not a validation metric: '
        f'there are {", ".join(metrics)}'
      )
    value = metrics[self._metric]
    if self.best is None or self._sign * (value - self.best) > self._delta:
      self.best, self.waited = value, 0
    else:
      self.waited += 1


class Watch:
  """Sees every validation; its state travels with the checkpoint.

  Args:
    plateau: when the learning rate is cut.
    stopping: when training ends.

  Attributes:
    scale: what the scheduled learning rate is multiplied by.
    stop: whether training should end.
  """

  def __init__(self, plateau: Plateau, stopping: EarlyStopping):
    self._plateau = plateau if plateau.factor < 1 else None
    self._stopping = stopping if stopping.patience else None
    self._stalled = _Patience('plateau', plateau.metric, plateau.mode, plateau.delta)
    self._ended = _Patience('early_stopping', stopping.metric, stopping.mode, stopping.delta)
    self.scale = 1.0

  @property
  def active(self) -> bool:
    return bool(self._plateau or self._stopping)

  @property
  def stop(self) -> bool:
    return bool(self._stopping) and self._ended.waited >= self._stopping.patience

  def update(self, metrics: dict[str, float]) -> str:
    """Takes the metrics of one validation; returns a line to say, or nothing."""
    said = ''
    if self._plateau:
      self._stalled.update(metrics)
      if self._stalled.waited >= self._plateau.patience:
        self._stalled.waited = 0
        scale = max(self._plateau.floor, self.scale * self._plateau.factor)
        if not math.isclose(scale, self.scale):
          self.scale = scale
          said = (
            f'validation {self._plateau.metric} stalls at {self._stalled.best:.4g}: learning '
            f'rate times {scale:.4g} from here'
          )
    if self._stopping:
      self._ended.update(metrics)
      if self.stop:
        said = (
          f'validation {self._stopping.metric} did not get better than '
          f'{self._ended.best:.4g} in {self._stopping.patience} validations: training ends'
        )
    return said

  def get_state(self) -> dict:
    """JSON values."""
    return {
      'scale': self.scale,
      'stalled': [self._stalled.best, self._stalled.waited],
      'ended': [self._ended.best, self._ended.waited],
    }

  def set_state(self, state: dict) -> None:
    self.scale = state['scale']
    self._stalled.best, self._stalled.waited = state['stalled']
    self._ended.best, self._ended.waited = state['ended']
