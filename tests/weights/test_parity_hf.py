"""Logits equal Hugging Face's; folders go there and come back, and transformers reads them."""

import numpy as np
import pytest

from tests.weights import oracle, peers  # skips this file without torch
from vit_jax import convert, tree
from vit_jax.data import Preprocess
from vit_jax.models.shapes import description, variable_specs
from vit_jax.weights import saving

transformers = pytest.importorskip('transformers')

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

SIZES = {
  'vit_ti16': (192, 12, 3, 768, 16),
  'vit_s16': (384, 12, 6, 1536, 16),
  'vit_b16': (768, 12, 12, 3072, 16),
  'vit_b32': (768, 12, 12, 3072, 32),
  'vit_l16': (1024, 3, 16, 4096, 16),
  'vit_l32': (1024, 3, 16, 4096, 32),
  'vit_h14': (1280, 2, 16, 5120, 14),
}


def their_config(name, size, kind=None, **kw):
  width, depth, heads, mlp, patch = SIZES[name]
  return (kind or transformers.ViTConfig)(
    hidden_size=width,
    num_hidden_layers=depth,
    num_attention_heads=heads,
    intermediate_size=mlp,
    patch_size=patch,
    image_size=list(size) if size[0] != size[1] else size[0],
    num_labels=kw.pop('num_labels', 11),
    **kw,
  )


def save(model, folder):
  model.save_pretrained(folder)
  return folder


@pytest.mark.parametrize('size', [(224, 224), (160, 256)], ids=str)
@pytest.mark.parametrize('name', list(SIZES))
def test_every_size_of_vit(tmp_path, name, size):
  if name == 'vit_h14' and size != (224, 224):
    size = (140, 224)
  theirs = peers.randomize(transformers.ViTForImageClassification(their_config(name, size)))
  weights = convert.read(save(theirs, tmp_path))
  assert weights.format == 'hf' and weights.grid == tuple(n // SIZES[name][4] for n in size)
  if SIZES[name][1] == 12:
    assert weights.model['name'] == name
  module = convert.build(weights)
  variables, report = convert.fit(weights, module, size)
  assert not (report.resized or report.reinitialised or report.dropped), str(report)
  x = peers.images(*size)
  expected = peers.torch_logits(theirs, x)
  error = np.abs(np.asarray(module.apply(variables, x)) - expected).max()
  print(f'{name} {size}: {error:.1e} of logits up to {np.abs(expected).max():.1f}')
  assert error < 1e-4
  back = saving.to_tensors(variables, module, 'hf', size)
  assert peers.same_bytes(back, {k: weights.tensors[k] for k in weights.tensors}) == []


@pytest.mark.parametrize('kind', ['ViTModel', 'DeiTForImageClassificationWithTeacher'])
def test_the_other_classes(tmp_path, kind):
  size = (224, 224)
  config = transformers.DeiTConfig if kind.startswith('DeiT') else None
  theirs = peers.randomize(getattr(transformers, kind)(their_config('vit_ti16', size, config)))
  weights = convert.read(save(theirs, tmp_path))
  module = convert.build(weights)
  variables, report = convert.fit(weights, module, size)
  x = peers.images(*size)
  with peers.torch.no_grad():
    result = theirs(peers.torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
  expected = (result.pooler_output if kind == 'ViTModel' else result.logits).numpy()
  np.testing.assert_allclose(module.apply(variables, x), expected, atol=1e-4)
  if kind == 'ViTModel':
    assert module.representation_size == 192 and module.num_classes == 0
  else:
    assert weights.model['name'] == 'deit_ti16_distilled'
  back = saving.to_tensors(variables, module, 'hf', size)
  original = {k.removeprefix('vit.'): weights.tensors[k] for k in weights.tensors}
  assert peers.same_bytes({k.removeprefix('vit.'): v for k, v in back.items()}, original) == []


@pytest.mark.parametrize('format', ['safetensors', 'bin'])
def test_labels_size_and_normalization_travel(tmp_path, format):
  config = their_config('vit_ti16', (64, 64), id2label={0: 'ant', 1: 'bee', 2: 'cat'})
  config.num_labels = 3
  config.id2label = {0: 'ant', 1: 'bee', 2: 'cat'}
  theirs = peers.randomize(transformers.ViTForImageClassification(config))
  save(theirs, tmp_path)
  if format == 'bin':
    peers.torch.save(theirs.state_dict(), tmp_path / 'pytorch_model.bin')
    (tmp_path / 'model.safetensors').unlink()
  (tmp_path / 'preprocessor_config.json').write_text(
    '{"do_resize": true, "size": {"height": 64, "width": 64}, "resample": 3,'
    '"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}'
  )
  weights = convert.read(tmp_path)
  assert weights.classes == ('ant', 'bee', 'cat')
  assert weights.preprocess == Preprocess(
    'decode|resize(64, method=bicubic)', (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
  )


@pytest.mark.parametrize('gelu', ['tanh', 'exact'])
@pytest.mark.parametrize('to', ['hf', 'timm'])
def test_our_model_gives_the_same_logits_there(tmp_path, to, gelu):
  classes = ('ant', 'bee', 'cat')
  module = oracle.ours(3, patch_size=16, width=48, gelu=gelu, norm_epsilon=1e-6)
  preprocess = Preprocess('decode|resize_small(72, bicubic)|central_crop(64)', (0.4,) * 3)
  specs = variable_specs(module, (64, 64))
  variables = tree.unflatten(oracle.scattered_specs(specs))
  model = description(module, 'vit_ti16')
  convert.write(
    tmp_path / 'out', variables, module, to, model=model, classes=classes, preprocess=preprocess
  )
  x = peers.images(64, 64)
  if to == 'hf':
    theirs = transformers.ViTForImageClassification.from_pretrained(tmp_path / 'out').eval()
    assert theirs.config.id2label == dict(enumerate(classes))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'out')
    pixels = np.random.default_rng(0).integers(0, 256, (90, 110, 3), dtype=np.uint8)
    theirs_in = np.asarray(processor(pixels, return_tensors='np')['pixel_values'])[0]
    assert theirs_in.shape == (3, 64, 64)
  else:
    theirs = peers.timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    data = peers.timm.data.resolve_model_data_config(theirs)
    assert data['input_size'] == (3, 64, 64) and data['mean'] == [0.4] * 3 or (0.4,) * 3
    assert int(64 / data['crop_pct']) == 72 and data['interpolation'] == 'bicubic'
  np.testing.assert_allclose(module.apply(variables, x), peers.torch_logits(theirs, x), atol=1e-4)
  again = convert.read(tmp_path / 'out')
  assert again.classes == classes
  assert again.preprocess == preprocess
  rebuilt = convert.build(again)
  same = convert.fit(again, rebuilt, (64, 64))[0]
  np.testing.assert_array_equal(rebuilt.apply(same, x), module.apply(variables, x))
