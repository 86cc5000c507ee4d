"""What sets DeiT apart: a second head, and gains."""

import numpy as np

from tests.models import small
from vit_jax import models


def test_a_distilled_model_has_two_heads_in_training_and_their_mean_otherwise():
  module = small.build('deit_ti16_distilled')
  x, variables = small.images(module), small.variables(module)
  logits, distilled = module.apply(variables, x, train=True)
  assert not np.allclose(logits, distilled)
  np.testing.assert_allclose(module.apply(variables, x), (logits + distilled) / 2, atol=1e-6)
  assert variables['params']['position_embedding'].shape == (1, 2 + 6, 24)
  assert module.num_prefix_tokens == 2


def test_deit3_has_gains_and_no_position_for_its_class_token():
  module = small.build('deit3_s16')
  params = small.variables(module)['params']
  assert params['position_embedding'].shape == (1, 6, 24)
  assert params['encoder']['block_00']['scale1']['gamma'].shape == (24,)
  assert models.fields('deit3_s16')['layer_scale'] == 1e-6
