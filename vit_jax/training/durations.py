"""Lengths such as '5 epochs' in steps of one run."""

import dataclasses

from vit_jax.options import Length


@dataclasses.dataclass(frozen=True)
class Durations:
  """Turns lengths into steps.

  Attributes:
    batch_size: examples a step.
    num_examples: of an epoch.
  """

  batch_size: int
  num_examples: int

  def steps(self, length: str) -> int:
    """A length in whole steps."""
    return round(self._exactly(length))

  def due(self, step: int, every: str) -> bool:
    """Whether something done every so often falls to this step; epochs need not be whole steps."""
    if not every:
      return False
    length = self._exactly(every)
    return step // length > (step - 1) // length if length > 1 else True

  def _exactly(self, length: str) -> float:
    return Length.parse(length).steps(self.batch_size, self.num_examples)
