"""Weights as others leave them: folders and files of a small ViT, with something changed."""

import json
import logging

import numpy as np

from tests.weights import oracle
from vit_jax import convert, models, tree
from vit_jax.data import Preprocess
from vit_jax.models.shapes import variable_specs
from vit_jax.weights import saving
from vit_jax.weights.containers import safetensors

SIZES = {**oracle.SIZES, 'gelu': 'exact'}
SIZE = (24, 24)


def vit(name='vit_ti16', classes=2, seed=0, size=SIZE, **fields):
  """(name, module, variables) of a small ViT with random numbers."""
  module = models.build(name, classes, **{**SIZES, **fields})
  return module, tree.unflatten(oracle.scattered_specs(variable_specs(module, size), seed))


def tensors(naming='timm', classes=2, seed=0, size=SIZE, **fields):
  """Arrays by the names of a format, and nothing else."""
  module, variables = vit(classes=classes, seed=seed, size=size, **fields)
  return saving.to_tensors(variables, module, naming, size)


def file(path, arrays):
  """A .safetensors of arrays without a record."""
  safetensors.write(path, arrays, {})
  return path


def folder(path, to='hf', size=SIZE, classes=2, **changes):
  """A model's folder as others write it.

  Args:
    path: of the folder.
    to: 'hf' or 'timm'.
    size: of the images.
    classes: outputs.
    **changes: for each JSON file (without .json) fields to set, or to drop where they are None.
  """
  module, variables = vit(classes=classes, size=size)
  transform = f'decode|resize({size[0]}, {size[1]}, bicubic)'
  convert.write(
    path, variables, module, to, model={'name': 'vit_ti16', **SIZES},
    classes=[f'class {i}' for i in range(classes)], preprocess=Preprocess(transform),
  )  # fmt: skip
  weights = path / 'model.safetensors'
  file(weights, dict(safetensors.Safetensors(weights)))  # without our record
  for name, fields in changes.items():
    config = path / f'{name}.json'
    content = {**json.loads(config.read_text()), **fields}
    config.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
  return path


def told(caplog):
  """The warnings of a test so far, as one text."""
  records = [r for r in caplog.records if r.levelno >= logging.WARNING]
  return '\n'.join(r.getMessage() for r in records)


def equal(a, b):
  """Whether two trees of variables are equal to the last bit."""
  a, b = tree.flatten(a), tree.flatten(b)
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
