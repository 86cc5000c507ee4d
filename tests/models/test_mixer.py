"""What sets MLP-Mixer apart."""

from tests.models import small


def test_mixer_weights_fit_one_number_of_patches():
  module = small.build('mixer_b16')
  block = small.variables(module)['params']['encoder']['block_00']
  assert block['token_mixing']['fc1']['kernel'].shape == (6, 13)
  assert block['channel_mixing']['fc1']['kernel'].shape == (24, 29)
