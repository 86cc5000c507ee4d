"""The embedded digits are scikit-learn's, whose import is saved."""

import importlib.util
import subprocess
import sys

import numpy as np
from sklearn.datasets import load_digits

from vit_jax.data.sources import digits


def test_they_are_scikit_learns(monkeypatch):
  values, labels = load_digits(return_X_y=True)
  for hidden in (False, True):
    if hidden:  # another layout of that package
      monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    found = digits._values_and_labels()
    assert np.array_equal(found[0], values) and np.array_equal(found[1], labels)


def test_they_open_without_importing_it():
  program = (
    'import sys; from vit_jax.data.sources.digits import digits_source; '
    "print(len(digits_source().records['train']), 'sklearn' in sys.modules)"
  )
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  assert done.stdout == '1297 False\n'
