"""Lengths such as '5 epochs' in steps of one run."""

import dataclasses

from vit_jax.errors import ConfigError
from vit_jax.options import Length

_MOST_STEPS = 2**31 - 1  # int32
_LOG_STEPS, _LOG_ROWS = 20, 20  # steps between two rows at most, rows of a run at least


@dataclasses.dataclass(frozen=True)
class Durations:
  """Turns lengths into steps.

  Attributes:
    batch_size: examples a step.
    num_examples: of an epoch.
  """

  batch_size: int
  num_examples: int

  def steps(self, length: str, option: str = '') -> int:
    """A length in whole steps.

    Args:
      length: such as '5 epochs'.
      option: whose value it is, for the message.

    Raises:
      ConfigError: more than a step counter holds.
    """
    steps = self._exactly(length)
    if steps > _MOST_STEPS:
      raise ConfigError(
        f'{option or "length"}={length!r} is {steps:.3g} steps: at most {_MOST_STEPS} are possible'
      )
    return round(steps)

  def log_interval(self, every: str, total_steps: int) -> str:
    """How often training metrics are written: as is said, else so that a short run has a curve.

    Args:
      every: `config.log.every`.
      total_steps: of the run.
    """
    steps = min(_LOG_STEPS, round(self._exactly('1 epoch')), total_steps // _LOG_ROWS)
    return every or f'{max(1, steps)} steps'

  def due(self, step: int, every: str) -> bool:
    """Whether something done every so often falls to this step; epochs need not be whole steps."""
    if not every:
      return False
    length = self._exactly(every)
    return step // length > (step - 1) // length if length > 1 else True

  def _exactly(self, length: str) -> float:
    return Length.parse(length).steps(self.batch_size, self.num_examples)
