"""Logits equal timm's, weights go there and come back unchanged."""

import numpy as np
import pytest

from tests.weights import peers  # skips this file without torch and timm
from vit_jax import convert
from vit_jax.weights import saving

timm = peers.timm
save_file = pytest.importorskip('safetensors.torch').save_file

# Giant models are cut to a few blocks: every block is like the others, and 40 do not fit a test.
VIT = [
  ('vit_tiny_patch16_224', 'vit_ti16', 12),
  ('vit_small_patch32_224', 'vit_s32', 12),
  ('vit_small_patch16_224', 'vit_s16', 12),
  ('vit_small_patch8_224', 'vit_s8', 2),
  ('vit_base_patch32_224', 'vit_b32', 12),
  ('vit_base_patch16_224', 'vit_b16', 12),
  ('vit_base_patch8_224', 'vit_b8', 2),
  ('vit_large_patch32_224', 'vit_l32', 3),
  ('vit_large_patch16_224', 'vit_l16', 3),
  ('vit_large_patch14_224', 'vit_l14', 3),
  ('vit_huge_patch14_224', 'vit_h14', 2),
  ('vit_tiny_r_s16_p8_224', 'r_ti16', 12),
  ('vit_small_r26_s32_224', 'r26_s32', 12),
  ('vit_base_r26_s32_224', 'r26_b32', 3),
  ('vit_base_r50_s16_224', 'r50_b16', 3),
  ('vit_large_r50_s32_224', 'r50_l32', 3),
]


def compare(tmp_path, theirs, size, expected_name=None, tolerance=1e-4, **overrides):
  """Saves a timm model, loads it here, compares logits and bytes; gives back the worst error."""
  # A DeiT has the tensors of a ViT: the file's name decides.
  path = tmp_path / f'{expected_name}.safetensors'
  save_file(theirs.state_dict(), path)
  weights = convert.read(path)
  module = convert.build(weights, **overrides)
  if expected_name:
    assert weights.model['name'] == expected_name
  variables, report = convert.fit(weights, module, size)
  assert not (report.resized or report.reinitialised or report.dropped), str(report)
  x = peers.images(*size)
  expected = peers.torch_logits(theirs, x)
  error = np.abs(np.asarray(module.apply(variables, x)) - expected).max()
  assert error < tolerance * max(1.0, np.abs(expected).max()), error
  back = saving.to_tensors(variables, module, 'timm', size)
  original = {k: v.numpy() for k, v in theirs.state_dict().items() if 'num_batches' not in k}
  assert peers.same_bytes(back, original) == []
  print(f'{expected_name}: {error:.1e} of logits up to {np.abs(expected).max():.1f}')
  return error


@pytest.mark.slow
@pytest.mark.parametrize('size', [(224, 224), (160, 256)], ids=str)
@pytest.mark.parametrize('their_name,our_name,depth', VIT, ids=lambda v: str(v))
def test_every_vit_and_hybrid_of_timm(tmp_path, their_name, our_name, depth, size):
  patch = 14 if '14' in their_name else 32
  if patch == 14:
    size = tuple(n // 32 * 28 for n in size) if size != (224, 224) else size
  theirs = peers.randomize(timm.create_model(their_name, img_size=size, depth=depth))
  enlarge_standardised_kernels(theirs)
  full = depth in (12, 24)
  compare_shrunk(tmp_path, theirs, size, our_name, depth, full)


def enlarge_standardised_kernels(theirs):
  """Makes the stem's kernels large beside the epsilons of their standardisation.

  The official code adds 1e-5 to the deviation, as this code does, and timm 1e-8 to the variance.
  """
  for name, kernel in theirs.state_dict().items():
    if 'backbone' in name and kernel.ndim == 4:
      kernel.mul_(100)


def compare_shrunk(tmp_path, theirs, size, our_name, depth, full):
  if full and size[0] == size[1]:
    compare(tmp_path, theirs, size, our_name)
    return
  path = tmp_path / 'model.safetensors'
  save_file(theirs.state_dict(), path)
  weights = convert.read(path)
  module = convert.build(weights, our_name, depth=depth, gelu='exact')
  options = convert.Options(source_grid=tuple(n // p for n, p in zip(size, module.patch_size)))
  variables, report = convert.fit(weights, module, size, options)
  assert not (report.resized or report.reinitialised), str(report)
  x = peers.images(*size)
  expected = peers.torch_logits(theirs, x)
  error = np.abs(np.asarray(module.apply(variables, x)) - expected).max()
  largest = np.abs(expected).max()
  print(f'{our_name} {size}: {error:.1e} of logits up to {largest:.1f}')
  assert error < 1e-4 * max(1.0, largest)
  back = saving.to_tensors(variables, module, 'timm', size)
  original = {k: v.numpy() for k, v in theirs.state_dict().items()}
  assert peers.same_bytes(back, original) == []
