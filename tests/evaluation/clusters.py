"""Features of overlapping clusters."""

import numpy as np


def clusters(n=53, d=11, k=3, seed=0, spread=1.0):
  """Features [n, d] and labels [n], one channel of another size than the others."""
  rng = np.random.default_rng(seed)
  labels = (np.arange(n) % k).astype(np.int32)
  centres = np.random.default_rng(77).standard_normal((k, d))
  x = centres[labels] + spread * rng.standard_normal((n, d))
  x[:, 2] *= 1000  # standardising matters
  return (x + 5).astype(np.float32), labels
