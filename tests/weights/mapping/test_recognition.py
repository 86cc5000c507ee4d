"""Formats and models are recognised from the names and shapes of arrays alone."""

import numpy as np
import pytest

from tests.weights.test_saving import FORMATS as WRITTEN
from tests.weights.test_saving import made
from vit_jax import models
from vit_jax.models.shapes import variable_specs
from vit_jax.weights import saving
from vit_jax.weights.containers.tensors import Arrays
from vit_jax.weights.formats import base as formats
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.family import FAMILIES, family_of, recognise


@pytest.mark.parametrize('kind,to', [(k, f) for k in WRITTEN for f in WRITTEN[k]])
def test_models_are_recognised_from_tensors_alone(kind, to):
  if to == 'vit_jax' or (to == 'big_vision' and kind in ('vit', 'pre_logits')):
    return  # says it itself; comes back as the same model without a slot
  size = (32, 32) if kind in ('hybrid', 'root') else (24, 24)
  name, module, variables = made(kind, size)
  tensors = Arrays(saving.to_tensors(variables, module, to, size))
  assert formats.recognise(list(tensors)) == to or (kind == 'gap' and to == 'npz')
  found = recognise(tensors, to, name, {'num_heads': 3})
  fields = {k: v for k, v in found.model.items() if k != 'name'}
  built = models.build(found.model['name'], found.num_classes, **fields)
  for field in ('width', 'depth', 'mlp_dim', 'patch_size', 'pool', 'num_heads', 'num_registers'):
    assert getattr(built, field) == getattr(module, field), field
  assert variable_specs(built, size) == variable_specs(module, size)


QUICK = ('vit_ti16', 'deit_ti16', 'deit3_s16', 'r26_s32', 'cait_xxs24', 'mixer_s32', 'resnet50')
QUICK += ('bit_r50x1', 'mobilenet_v2', 't2t_vit_7', 't2t_vit_t_14', 'deit_ti16_distilled')


@pytest.mark.parametrize(
  'name',
  [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in models.names()],
)
def test_every_published_model_is_recognised_by_name(name):
  module = models.build(name, 7)
  if type(module).__name__ not in FAMILIES:
    pytest.skip('read and written in our own format alone')
  family = family_of(module)
  size = (384, 384) if family.name == 'CaiT' else (224, 224)
  specs = variable_specs(module, size)
  for to in ('npz', 'timm', 'hf', 'keras'):
    if to not in family.tables or (to == 'hf' and family.problems(to, module)):
      continue
    if to == 'keras' or (to in ('npz', 'hf') and name.startswith('deit')):
      continue  # other arrays than timm's, or another name for the same ones
    bindings, orphans = rules.bind(family.table(to, specs).rules, specs)
    if orphans:
      continue
    shapes = {}
    for b in bindings:
      shapes.update(zip(b.theirs, b.their_shapes([specs[n].shape for n in b.ours])))
    zeros = {k: np.broadcast_to(np.float32(0), s) for k, s in shapes.items()}
    found = recognise(Arrays(zeros), to, hint=name)
    assert found.model['name'] == name and found.num_classes == 7


def test_arrays_of_no_known_model_are_not_recognised():
  assert recognise(Arrays({'a.b': np.zeros(3, np.float32)}), 'timm') is None
  broken = {'blocks_token_only.0.norm1.weight': np.zeros(3, np.float32)}  # a CaiT without the rest
  assert recognise(Arrays(broken), 'timm') is None
