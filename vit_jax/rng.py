"""Random keys are derived from what they are for, never carried along.

A key depends on the run's seed, a stream's name and the step alone, so an interrupted run draws the
same numbers as an uninterrupted one.
"""

import zlib

import jax


def named(key: jax.Array, name: str) -> jax.Array:
  """The key that a key gives to what its numbers are for ('mixing')."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stream(seed: int, name: str, step=0) -> jax.Array:
  """The key of one stream at one step.

  Args:
    seed: the run's seed.
    name: what the numbers are for ('params', 'dropout').
    step: training step; may be traced.
  """
  return jax.random.fold_in(named(jax.random.key(seed), name), step)
