"""How far frozen features go without training: few-shot least squares and nearest neighbours."""

from vit_jax.frozen.least_squares import LeastSquares, accuracies, draw, few, fit
from vit_jax.frozen.linear import Linear
from vit_jax.frozen.neighbours import nearest, vote, vote_accuracies

__all__ = [
  'LeastSquares',
  'Linear',
  'accuracies',
  'draw',
  'few',
  'fit',
  'nearest',
  'vote',
  'vote_accuracies',
]
