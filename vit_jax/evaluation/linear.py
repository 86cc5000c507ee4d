"""What every fit to frozen features gives: a linear classifier."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Linear:
  """A linear classifier of features.

  Attributes:
    kernel: [d, k] float64.
    bias: [k] float64.
  """

  kernel: np.ndarray
  bias: np.ndarray

  def __call__(self, features: np.ndarray) -> np.ndarray:
    """Scores [n, k] of features [n, d]."""
    return features.astype(np.float64) @ self.kernel + self.bias
