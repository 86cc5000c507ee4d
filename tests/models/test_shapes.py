"""Models are called by their names and what was changed of them."""

import pytest

from vit_jax import models
from vit_jax.models.shapes import description, title


@pytest.mark.parametrize(
  'name, fields, wanted',
  [
    ('resnet50', {}, 'resnet50'),
    ('resnet50', {'blocks': (1, 1, 1, 1), 'width': 8}, 'resnet50 (blocks=1,1,1,1 width=8)'),
    ('vit_ti16', {'patch_size': (4, 4), 'depth': 1}, 'vit_ti16 (patch_size=4,4 depth=1)'),
    ('vit_ti16', {'qkv_bias': False, 'pool': 'gap'}, 'vit_ti16 (pool=gap qkv_bias=False)'),
    # How it is trained or computed does not make it another model.
    ('vit_ti16', {'dropout': 0.1, 'dtype': 'bfloat16', 'remat': 'block', 'scan': True}, 'vit_ti16'),
    ('resnet50', {'norm_frozen': True, 'norm_momentum': 0.5}, 'resnet50'),
  ],
)
def test_a_model_is_named_with_its_overrides(name, fields, wanted):
  assert title(description(models.build(name, 3, **fields), name)) == wanted
  assert title({'name': name}) == name
