"""Which run is the most accurate, in words: for the page and for a terminal."""

from collections.abc import Sequence

from vit_jax.comparison.gather import Run
from vit_jax.comparison.significance import LEVEL, Pair
from vit_jax.report.text import percent


def of_runs(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
  """Who leads or ties, by how much, and whether that is significant, in a sentence or two.

  Args:
    runs: at least two.
    pairs: every pair of them with its test.
  """
  top = max(run.metrics['accuracy'] for run in runs)
  best = [run for run in runs if run.metrics['accuracy'] == top]
  others = [run for run in runs if run.metrics['accuracy'] < top]
  if len(best) == 1:
    text = f'Most accurate is {best[0].name} with {percent(top)}.'
  else:
    named = f'{", ".join(run.name for run in best[:-1])} and {best[-1].name}'
    text = f'A tie: {named} are most accurate, with {percent(top)} each'
    if len(best) == 2:
      (pair,) = (p for p in pairs if p.first in best and p.second in best)
      low, high = pair.test.interval
      text += f' (difference 0.0 points, {_interval(low, high)})'
    text += '.'
  if not others:
    return text
  if len(runs) == 2:
    return f'{text} {_lead(pairs[0])}'
  whose = 'Its' if len(best) == 1 else 'Their'
  unsure = [run.name for run in others if not _is_behind(run, best, pairs)]
  if not unsure:
    return f'{text} {whose} lead over every other run is significant (p < {LEVEL:g}).'
  text = f'{text} {whose} lead over {", ".join(unsure)} is not significant (p ≥ {LEVEL:g})'
  return f'{text}, over the others it is.' if len(unsure) < len(others) else f'{text}.'


def of_pair(pair: Pair) -> str:
  """'vit better', 'not significant' or 'tie'."""
  if pair.significant:
    return f'{(pair.first if pair.test.difference > 0 else pair.second).name} better'
  return 'not significant' if pair.test.difference else 'tie'


def points(share: float) -> str:
  """'+1.2' or '0.0': a difference of shares in points."""
  value = round(100 * share, 1)
  return f'{value:+.1f}' if value else '0.0'


def p_text(p: float) -> str:
  """'< 0.0001', '0.0123' or '0.12'."""
  return '< 0.0001' if p < 0.0001 else f'{p:.4f}' if p < 0.1 else f'{p:.2f}'


def _interval(low: float, high: float) -> str:
  return f'95\u00a0% interval {points(low)} to {points(high)}'


def _lead(pair: Pair) -> str:
  """Of two runs, the better one's lead."""
  low, high = pair.test.interval
  behind = pair.second
  if pair.test.difference < 0:
    low, high, behind = -high, -low, pair.first
  word = 'significant' if pair.significant else 'not significant'
  p = p_text(pair.adjusted_p)
  return (
    f'Its lead of {100 * abs(pair.test.difference):.1f} points over {behind.name} '
    f'({_interval(low, high)}) is {word} (p {p if p.startswith("<") else f"= {p}"}).'
  )


def _is_behind(run: Run, best: Sequence[Run], pairs: Sequence[Pair]) -> bool:
  """Whether a run differs significantly from each of the best."""
  return all(
    pair.significant
    for pair in pairs
    if run in (pair.first, pair.second) and (pair.first in best or pair.second in best)
  )
