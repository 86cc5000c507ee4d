"""The other families: logits equal timm's, weights go there and come back unchanged."""

import pytest

from tests.weights import peers  # skips this file without torch and timm
from tests.weights.test_parity_timm import compare

timm = peers.timm

# (timm's model, ours, size, arguments of timm's). Deep ones are cut to a few blocks.
QUICK = [
  ('deit_tiny_patch16_224', 'deit_ti16', (224, 224), {}),
  ('deit_tiny_distilled_patch16_224', 'deit_ti16_distilled', (224, 224), {}),
  ('deit3_small_patch16_224', 'deit3_s16', (224, 224), {}),
  ('cait_xxs24_224', 'cait_xxs24', (224, 224), {}),
  ('mixer_s32_224', 'mixer_s32', (224, 224), {}),
  ('resnet50', 'resnet50', (160, 224), {}),
  ('resnetv2_50x1_bit', 'bit_r50x1', (128, 160), {}),
  ('mobilenetv2_100', 'mobilenet_v2', (160, 224), {}),
]
REST = [
  ('deit_small_patch16_224', 'deit_s16', (224, 224), {}),
  ('deit_base_patch16_224', 'deit_b16', (224, 224), {}),
  ('deit_base_patch16_384', 'deit_b16', (384, 384), {}),
  ('deit_small_distilled_patch16_224', 'deit_s16_distilled', (224, 224), {}),
  ('deit_base_distilled_patch16_224', 'deit_b16_distilled', (224, 224), {}),
  ('deit3_medium_patch16_224', 'deit3_m16', (224, 224), {}),
  ('deit3_base_patch16_224', 'deit3_b16', (224, 224), {}),
  ('deit3_large_patch16_224', 'deit3_l16', (224, 224), {}),
  ('cait_xxs36_224', 'cait_xxs36', (224, 224), {}),
  ('cait_xs24_384', 'cait_xs24', (384, 384), {}),
  ('cait_s24_224', 'cait_s24', (224, 224), {}),
  ('cait_s36_384', 'cait_s36', (384, 384), {}),
  ('mixer_s16_224', 'mixer_s16', (224, 224), {}),
  ('mixer_b32_224', 'mixer_b32', (224, 224), {}),
  ('mixer_b16_224', 'mixer_b16', (224, 224), {}),
  ('mixer_l32_224', 'mixer_l32', (224, 224), {}),
  ('mixer_l16_224', 'mixer_l16', (224, 224), {}),
  ('resnetv2_50x3_bit', 'bit_r50x3', (96, 96), {}),
  ('resnetv2_101x1_bit', 'bit_r101x1', (96, 96), {}),
]


@pytest.mark.slow
@pytest.mark.parametrize('theirs,ours,size,arguments', QUICK + REST, ids=lambda v: str(v))
def test_every_other_family_of_timm(tmp_path, theirs, ours, size, arguments):
  model = peers.randomize(timm.create_model(theirs, **arguments))
  compare(tmp_path, model, size, ours)
