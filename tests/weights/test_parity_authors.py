"""Logits equal the authors' own code, where clones of it are in the folder VIT_JAX_PEERS."""

import importlib
import os
import pathlib
import sys

import numpy as np
import pytest

from tests.weights import oracle
from vit_jax import convert, models, tree
from vit_jax.weights import saving

ROOT = pathlib.Path(os.environ.get('VIT_JAX_PEERS', 'nowhere'))
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]

# Our name and how many blocks are compared; deep models are cut, every block is like the others.
OFFICIAL = [
  ('vit_ti16', 12, (224, 224)),
  ('vit_s16', 12, (224, 224)),
  ('vit_s32', 12, (160, 256)),
  ('vit_b16', 12, (160, 256)),
  ('vit_b32', 12, (224, 224)),
  ('vit_l16', 3, (160, 256)),
  ('vit_l32', 3, (224, 224)),
  ('vit_h14', 2, (224, 224)),
  ('r_ti16', 12, (224, 224)),
  ('r26_s32', 12, (224, 224)),
  ('r26_b32', 2, (160, 256)),
  ('r50_b16', 2, (224, 224)),
  ('r50_l32', 2, (224, 224)),
]


@pytest.fixture
def official(monkeypatch):
  """The models of google-research/vision_transformer; their package has the name of this one."""
  folder = ROOT / 'vision_transformer'
  if not folder.is_dir():
    pytest.skip('set VIT_JAX_PEERS to a folder with a clone of vision_transformer')
  ours = {k: v for k, v in sys.modules.items() if k.split('.')[0] == 'vit_jax'}
  for name in ours:
    del sys.modules[name]
  sys.path.insert(0, str(folder))
  try:
    theirs = importlib.import_module('vit_jax.models_vit')
    importlib.import_module('vit_jax.models_mixer')
    mixer = sys.modules['vit_jax.models_mixer']
  finally:
    sys.path.remove(str(folder))
    for name in [k for k in sys.modules if k.split('.')[0] == 'vit_jax']:
      del sys.modules[name]
    sys.modules.update(ours)
  return theirs, mixer


def random_like(shapes, seed=0):
  rng = np.random.default_rng(seed)
  result = {}
  for name, s in tree.flatten(shapes).items():
    fan_in = np.prod(s.shape[:-1]) if len(s.shape) > 1 else 100
    values = rng.normal(0, fan_in**-0.5, s.shape)
    result[name] = (values + (name.endswith('scale') and 1)).astype(np.float32)
  return result


def check(tmp_path, theirs, size, name, **overrides):
  import jax

  x = oracle.images(*size)
  shapes = jax.eval_shape(lambda: theirs.init(jax.random.key(0), x, train=False))['params']
  flat = random_like(shapes)
  np.savez(tmp_path / 'w.npz', **flat)
  module = models.build(name, 7, **overrides)
  options = {}
  if hasattr(module, 'position_embedding'):
    options['source_grid'] = tuple(n // p for n, p in zip(size, module.patch_size))
  variables = convert.load(tmp_path / 'w.npz', module, size, **options)
  expected = np.asarray(theirs.apply({'params': tree.unflatten(flat)}, x, train=False))
  error = np.abs(np.asarray(module.apply(variables, x)) - expected).max()
  print(f'{name} {size}: {error:.1e} of logits up to {np.abs(expected).max():.1f}')
  assert error < 1e-4
  back = saving.to_tensors(variables, module, 'npz', size)
  assert back.keys() == flat.keys()
  assert all(back[k].tobytes() == flat[k].tobytes() for k in flat)


@pytest.mark.parametrize('representation', [None, 13])
@pytest.mark.parametrize('name,depth,size', OFFICIAL, ids=lambda v: str(v))
def test_vit_and_hybrids_of_the_official_code(
  tmp_path, official, name, depth, size, representation
):
  from ml_collections import ConfigDict

  fields = models.fields(name)
  blocks = fields['stem_blocks']
  stride = 1 if blocks is None else 4 * 2 ** max(0, len(blocks) - 1)
  resnet = None if blocks is None else ConfigDict({'num_layers': blocks, 'width_factor': 1.0})
  theirs = official[0].VisionTransformer(
    num_classes=7,
    patches=ConfigDict({'size': tuple(p // stride for p in fields['patch_size'])}),
    hidden_size=fields['width'],
    resnet=resnet,
    representation_size=representation,
    transformer={
      'num_layers': depth,
      'mlp_dim': fields['mlp_dim'],
      'num_heads': fields['num_heads'],
      'dropout_rate': 0.0,
      'attention_dropout_rate': 0.0,
    },
  )
  check(tmp_path, theirs, size, name, depth=depth, representation_size=representation)


@pytest.mark.parametrize('name', ['mixer_s32', 'mixer_b16', 'mixer_b32'])
def test_mixers_of_the_official_code(tmp_path, official, name):
  from ml_collections import ConfigDict

  fields = models.fields(name)
  theirs = official[1].MlpMixer(
    patches=ConfigDict({'size': fields['patch_size']}),
    num_classes=7,
    num_blocks=fields['depth'],
    hidden_dim=fields['width'],
    tokens_mlp_dim=fields['token_mlp_dim'],
    channels_mlp_dim=fields['mlp_dim'],
  )
  check(tmp_path, theirs, (224, 224), name)


@pytest.mark.parametrize(
  'name', ['7', '10', '12', '14', '19', '24', 't_14', 't_19', 't_24'], ids=lambda n: f't2t_vit_{n}'
)
def test_t2t_of_the_authors(tmp_path, name, monkeypatch):
  if not (ROOT / 'T2T-ViT').is_dir():
    pytest.skip('set VIT_JAX_PEERS to a folder with a clone of T2T-ViT')
  from tests.weights import peers

  monkeypatch.syspath_prepend(str(ROOT / 'T2T-ViT'))
  authors = importlib.import_module('models.t2t_vit')
  theirs = getattr(authors, f't2t_vit_{name}')()
  fixed = {
    k: v.clone() for k, v in theirs.state_dict().items() if k == 'pos_embed' or k.endswith('.w')
  }
  peers.randomize(theirs)
  theirs.load_state_dict(fixed, strict=False)
  path = tmp_path / 'w.pth.tar'
  peers.torch.save({'state_dict_ema': theirs.state_dict(), 'epoch': 3}, path)
  weights = convert.read(path)
  assert weights.model['name'] == f't2t_vit_{name}'
  module = convert.build(weights)
  variables, report = convert.fit(weights, module, (224, 224))
  x = peers.images(224, 224, b=1)
  expected = peers.torch_logits(theirs, x)
  error = np.abs(np.asarray(module.apply(variables, x)) - expected).max()
  print(f't2t_vit_{name}: {error:.1e} of logits up to {np.abs(expected).max():.1f}')
  assert error < 1e-4
  back = saving.to_tensors(variables, module, 'timm', (224, 224))
  original = {k: v.numpy() for k, v in theirs.state_dict().items()}
  np.testing.assert_allclose(back.pop('pos_embed'), original.pop('pos_embed'), atol=1e-6)
  assert peers.same_bytes(back, original) == []
