"""Whether two models that saw the same pictures differ by more than chance."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Paired:
  """One model against another on the same pictures.

  Attributes:
    only_first: pictures that the first alone is right about.
    only_second: pictures that the second alone is right about.
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
  """Compares which pictures two models are right about.

  Args:
    first, second: bool [n], in the same order of pictures.
    seed: of the bootstrap.

  Source: McNemar 1947; the exact form counts disagreements as fair coins. Percentile bootstrap over
  pictures, drawn as counts of the outcomes, which is the same.
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
  """P-values adjusted for having tested several pairs.

  Source: Holm 1979.
  """
  order = np.argsort(p_values, kind='stable')
  adjusted = np.empty(len(order))
  largest = 0.0
  for rank, i in enumerate(order):
    largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
    adjusted[i] = largest
  return adjusted.tolist()
