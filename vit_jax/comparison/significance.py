"""Whether the accuracies of two models on the same images differ significantly."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from vit_jax.comparison.gather import Run
from vit_jax.report.metrics import CONFIDENCE_LEVEL

LEVEL = 0.05  # of significance


@dataclasses.dataclass(frozen=True)
class Paired:
  """One model against another on the same images.

  Attributes:
    only_first: images that the first alone predicts correctly.
    only_second: images that the second alone predicts correctly.
    difference: accuracy of the first less that of the second.
    interval: 95 % confidence interval of the difference.
    p_value: of McNemar's exact test, two-sided.
  """

  only_first: int
  only_second: int
  difference: float
  interval: tuple[float, float]
  p_value: float


def paired(first: np.ndarray, second: np.ndarray) -> Paired:
  """Compares which images two models predict correctly.

  Args:
    first, second: whether they are correct, bool [n], in the same order of images.

  Sources: McNemar 1947; the exact form is a binomial test of the disagreements. Bonett and Price
  2012, adjusted Wald interval: one disagreement of each kind is added, so that a few images without
  any do not show that two models are equal.
  """
  n = len(first)
  only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
  disagree = only_first + only_second
  p_value = stats.binomtest(only_first, disagree).pvalue if disagree else 1.0
  share_first, share_second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
  middle = share_first - share_second
  error = np.sqrt((share_first + share_second - middle**2) / (n + 2))
  reach = stats.norm.ppf(0.5 + CONFIDENCE_LEVEL / 2) * error
  low, high = max(-1.0, middle - reach), min(1.0, middle + reach)
  return Paired(
    only_first,
    only_second,
    (only_first - only_second) / n,
    (float(low), float(high)),
    float(p_value),
  )


def holm(p_values: Sequence[float]) -> list[float]:
  """P-values adjusted for the number of pairs tested.

  Source: Holm 1979.
  """
  order = np.argsort(p_values, kind='stable')
  adjusted = np.empty(len(order))
  largest = 0.0
  for rank, i in enumerate(order):
    largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
    adjusted[i] = largest
  return adjusted.tolist()


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two runs and their test.

  Attributes:
    first, second: the runs.
    test: of the first against the second.
    adjusted_p: the p-value adjusted for the number of pairs.
  """

  first: Run
  second: Run
  test: Paired
  adjusted_p: float

  @property
  def significant(self) -> bool:
    """Whether the accuracies differ at the 5 % level."""
    return self.adjusted_p < LEVEL


def pairs(runs: Sequence[Run]) -> list[Pair]:
  """Every pair of runs with its test."""
  both = list(itertools.combinations(runs, 2))
  tests = [paired(a.predictions.correct, b.predictions.correct) for a, b in both]
  adjusted = holm([test.p_value for test in tests])
  return [Pair(a, b, test, p) for (a, b), test, p in zip(both, tests, adjusted)]
