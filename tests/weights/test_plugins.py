"""A family of models and a weight format of a user's own are one file each, named by a variable."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

FAMILY = '''
"""A made-up classifier, whose authors keep its weights under names of their own."""

import flax.linen as nn

from vit_jax.models.base import register
from vit_jax.weights import preprocessing
from vit_jax.weights.formats import base as formats
from vit_jax.weights.mapping import family as families
from vit_jax.weights.mapping.recognition import Recognised, choose
from vit_jax.weights.mapping.rules import Rule
from vit_jax.weights.mapping.table import Table


class Acme(nn.Module):
  num_classes: int
  patch_size: tuple[int, int] = (8, 8)
  width: int = 16

  @nn.compact
  def __call__(self, images, train=False):
    conv = nn.Conv(self.width, self.patch_size, self.patch_size, use_bias=False, name='patches')
    x = nn.relu(conv(images)).mean(axis=(1, 2))
    return nn.Dense(self.num_classes, name='head')(x)


register('acme_s8', Acme)
register('acme_b5', Acme, patch_size=(5, 5), width=7)


@formats.register
class AcmeFormat(formats.Format):
  name = naming = 'acme'
  container = 'npz'

  def recognises(self, names):
    return any(name.startswith('acme.') for name in names)


@families.register
class AcmeFamily(families.Family):
  name = 'Acme'
  signs = ('acme.cut',)
  tables = {
    'acme': lambda our_names: Table(
      (
        Rule('acme.cut', 'patches/kernel', 'o i h w -> h w i o', role='patch'),
        Rule('acme.out.w', 'head/kernel', 'k d -> d k', role='head'),
        Rule('acme.out.b', 'head/bias', role='head'),
      ),
      'acme.cut',
    )
  }

  def model_of(self, file):
    h, w, _, width = file.shapes['params/patches/kernel']
    facts = {'patch_size': (h, w), 'width': width}
    return Recognised(choose(facts, ['acme_'], ('patch_size', 'width'), 'acme_s8'))

  def preprocess(self, model, naming, size):
    return preprocessing.google((20, 20))
'''

FORMAT = '''
"""Arrays under our own names as numbers in a JSON file."""

import json

import numpy as np

from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.tensors import Arrays
from vit_jax.weights.formats.base import OWN_NAMES, Format, register


def read(path):
  content = json.loads(path.read_text())
  arrays = {name: np.float32(values) for name, values in content['arrays'].items()}
  return Arrays(arrays, path, content['texts'])


def write(path, arrays, texts):
  numbers = {name: array.tolist() for name, array in arrays.items()}
  path.write_text(json.dumps({'arrays': numbers, 'texts': dict(texts)}))


CONTAINERS.add(
  'numbers',
  Container(
    recognises=lambda path, start: start.startswith(b'{"arrays"'),
    open=read,
    endings=('.numbers',),
    write=write,
    keeps_metadata=True,
  ),
)


@register
class Numbers(Format):
  name = 'numbers'
  naming = OWN_NAMES
  container = 'numbers'
  ending = '.numbers'
'''


@pytest.fixture
def run(tmp_path):
  """Runs Python in a process that knows both plugins; gives its output back."""
  (tmp_path / 'acme_family.py').write_text(FAMILY)
  (tmp_path / 'numbers_format.py').write_text(FORMAT)
  plugins = os.pathsep.join(str(tmp_path / f'{n}.py') for n in ('acme_family', 'numbers_format'))
  root = pathlib.Path(__file__).resolve().parents[2]

  def python(*arguments):
    done = subprocess.run(
      [sys.executable, *map(str, arguments)],
      env={**os.environ, 'VIT_JAX_PLUGINS': plugins},
      cwd=root,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  return python


@pytest.fixture
def foreign():
  """A file of the made-up family as its authors would write it."""
  rng = np.random.default_rng(0)
  shapes = {'acme.cut': (7, 3, 5, 5), 'acme.out.w': (3, 7), 'acme.out.b': (3,)}
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def logits_by_hand(foreign, images):
  b, h, w, c = images.shape
  patches = images.reshape(b, h // 5, 5, w // 5, 5, c)
  x = np.einsum('bypxqc,ocpq->byxo', patches, foreign['acme.cut'])
  x = np.maximum(x, 0).mean(axis=(1, 2))
  return x @ foreign['acme.out.w'].T + foreign['acme.out.b']


def test_help_names_formats_of_plugins(run):
  text = run('-m', 'vit_jax.convert', '--help')
  assert 'acme' in text and 'numbers' in text


def test_a_family_is_recognised_loaded_and_written_back(run, tmp_path, foreign):
  np.savez(tmp_path / 'w.npz', **foreign)
  code = f"""
import json, numpy as np, vit_jax
from vit_jax import convert
weights = convert.read({str(tmp_path / 'w.npz')!r})
loaded = vit_jax.load({str(tmp_path / 'w.npz')!r})
images = np.random.default_rng(1).integers(0, 256, (2, 20, 20, 3), np.uint8)
logits = loaded.module.apply(loaded.variables, loaded.preprocess.normalize(images))
convert.write({str(tmp_path / 'back.npz')!r}, loaded.variables, loaded.module, 'acme',
              model=weights.model, preprocess=loaded.preprocess)
print(json.dumps({{'format': weights.format, 'model': weights.model, 'classes': weights.num_classes,
                   'size': loaded.preprocess.image_size, 'logits': np.asarray(logits).tolist()}}))
"""
  result = json.loads(run('-c', code))
  logits = result.pop('logits')
  assert result == {
    'format': 'acme',
    'model': {'name': 'acme_b5'},
    'classes': 3,
    'size': [20, 20],
  }
  images = np.random.default_rng(1).integers(0, 256, (2, 20, 20, 3), np.uint8)
  expected = logits_by_hand(foreign, images / np.float32(127.5) - 1)
  np.testing.assert_allclose(logits, expected, atol=1e-4)
  with np.load(tmp_path / 'back.npz') as back:
    assert {name: array.tobytes() for name, array in back.items()} == {
      name: array.tobytes() for name, array in foreign.items()
    }


def test_a_format_is_written_and_read_by_the_command(run, tmp_path, foreign):
  np.savez(tmp_path / 'w.npz', **foreign)
  numbers, back = tmp_path / 'w.numbers', tmp_path / 'back.npz'
  text = run('-m', 'vit_jax.convert', tmp_path / 'w.npz', numbers)
  assert 'every tensor used as it is' in text and f'wrote {numbers} (numbers)' in text
  arrays = json.loads(numbers.read_text())['arrays']
  assert sorted(arrays) == ['params/head/bias', 'params/head/kernel', 'params/patches/kernel']
  np.testing.assert_array_equal(np.float32(arrays['params/head/bias']), foreign['acme.out.b'])
  run('-m', 'vit_jax.convert', numbers, back, '--to=acme', '--from=numbers')
  with np.load(back) as written:
    assert all((written[name] == array).all() for name, array in foreign.items())
  text = run(
    '-c',
    'import vit_jax\n'
    f'loaded = vit_jax.load({str(numbers)!r})\n'
    'print(type(loaded.module).__name__, loaded.module.width, loaded.config["model"]["name"])',
  )
  assert text.split() == ['Acme', '7', 'acme_b5']


def test_a_registered_model_in_a_plugins_format(run, tmp_path):
  """One of ours, named by --model and --to alone."""
  target = tmp_path / 'small'
  code = f"""
from tests.models import small
from vit_jax import convert
from vit_jax.data import Preprocess
module = small.build('vit_ti16')
convert.write({str(tmp_path / 'w.npz')!r}, small.variables(module), module, 'npz',
              model=convert.description(module, 'vit_ti16'),
              preprocess=Preprocess('decode|resize(16, 24)'))
"""
  run('-c', code)
  run('-m', 'vit_jax.convert', tmp_path / 'w.npz', target, '--to=numbers')
  run('-m', 'vit_jax.convert', target, tmp_path / 'again.npz')
  assert (tmp_path / 'w.npz').read_bytes() == (tmp_path / 'again.npz').read_bytes()
