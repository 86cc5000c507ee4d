"""Whether the accuracies of two models on the same images differ significantly."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from vit_jax.comparison.gather import Run

LEVEL = 0.05  # of significance
_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Paired:
  """One model against another on the same images.

  Attributes:
    only_first: images that the first alone predicts correctly.
    only_second: images that the second alone predicts correctly.
    difference: accuracy of the first less that of the second.
    interval: 95 % bootstrap interval of the difference.
    p_value: of McNemar's exact test, two-sided.
  """

  only_first: int
  only_second: int
  difference: float
  interval: tuple[float, float]
  p_value: float


def paired(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Paired:
  """Compares which images two models predict correctly.

  Args:
    first, second: whether they are correct, bool [n], in the same order of images.
    seed: of the bootstrap.

  Source: McNemar 1947; the exact form is a binomial test of the disagreements. Percentile bootstrap
  over images, drawn as multinomial counts of the outcomes, which is the same.
  """
  n = len(first)
  only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
  disagree = only_first + only_second
  p_value = stats.binomtest(only_first, disagree).pvalue if disagree else 1.0
  shares = np.array([only_first, only_second, n - disagree]) / n
  draws = np.random.default_rng(seed).multinomial(n, shares, _RESAMPLES)
  differences = (draws[:, 0] - draws[:, 1]) / n
  low, high = np.quantile(differences, (0.025, 0.975))
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
