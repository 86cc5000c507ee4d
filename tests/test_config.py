"""Options: defaults, overrides, and every mistake answered at once."""

import importlib.util
import pathlib
import re

import pytest

from vit_jax import config, models
from vit_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = str(ROOT / 'configs/vit_digits.py')


def test_defaults_survive_the_round_trip():
  assert config.parse(config.default()) == config.Config()


def test_overrides_take_the_type_of_their_option():
  parsed = config.load(
    DIGITS,
    {
      'optimizer.learning_rate': '1e-3',
      'optimizer.clip_norm': '2',
      'total': '3epochs',
      'dataset.name': 'some/folder',
      'dataset.classes': 'cat, dog',
      'input.image_size': '32',
      'input.mean': '0.1,0.2,0.3',
      'model.pool': 'token',
      'model.layer_scale': 'none',
      'dataset.resplit': 'true',
    },
  )
  assert parsed.optimizer.learning_rate == 0.001
  assert parsed.optimizer.clip_norm == 2.0 and isinstance(parsed.optimizer.clip_norm, float)
  assert parsed.dataset.classes == ('cat', 'dog')
  assert parsed.input.image_size == (32,) and parsed.input.mean == (0.1, 0.2, 0.3)
  assert parsed.model['pool'] == 'token' and parsed.model['layer_scale'] is None
  assert parsed.dataset.resplit is True


def test_another_model_comes_without_the_fields_of_the_first():
  parsed = config.load(DIGITS, {'model.name': 'vit_s16', 'model.pool': 'map'})
  assert parsed.model == {'name': 'vit_s16', 'pool': 'map'}
  assert config.load(DIGITS, {'model.name': 'vit_ti16'}).model['width'] == 64


def test_all_problems_are_told_at_once_with_the_nearest_names():
  with pytest.raises(UserError) as caught:
    config.load(
      DIGITS,
      {
        'optimizer.lerning_rate': '1',
        'batch_size': 'many',
        'parallel': 'pmapp',
        'optimizer.name': 'adam',
        'total': '5 weeks',
      },
    )
  text = str(caught.value)
  assert len(caught.value.problems) == 4  # lengths are read once all types are right
  assert "did you mean 'optimizer.learning_rate'?" in text
  assert "config.batch_size must be int, got 'many'" in text
  assert "did you mean 'pmap'?" in text
  assert "did you mean 'adamw'?" in text


@pytest.mark.parametrize(
  'overrides, words',
  [
    ({'total': '5 weeks'}, "config.total: expected a length such as '500 steps'"),
    ({'batch_size': '10', 'accumulate': '3'}, 'in config.accumulate=3 equal parts: use 9 or 12'),
    ({'head': 'keep'}, 'needs config.init_from'),
    ({'dataset.split_fractions': '0.5,0.2,0.2'}, 'add up to 1'),
    ({'optimizer.decay': '(=1'}, "expected 'REGEX=FACTOR'"),
    ({'task.label_smoothing': '1.0'}, 'must be in [0, 1)'),
    ({'model.name': 'vit_b17'}, "did you mean 'vit_b16'"),
    ({'model.pol': 'gap'}, "did you mean 'pool'?"),
    ({'input.train_transform': 'decode|inception_crp(8)'}, "did you mean 'inception_crop'?"),
  ],
)
def test_impossible_values_are_refused(overrides, words):
  with pytest.raises(UserError, match=re.escape(words)):
    config.load(DIGITS, overrides)


def test_a_mistake_in_a_file_names_its_line(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'from vit_jax import config as options\n\ndef get_config():\n  config = options.default()\n'
    '  config.optimizer.learnin_rate = 3\n  return config\n'
  )
  with pytest.raises(UserError, match=r'mine\.py, line 5.*learnin_rate'):
    config.load(str(file))
  with pytest.raises(UserError, match='no config file'):
    config.load(str(tmp_path / 'absent.py'))


@pytest.mark.parametrize(
  'text, steps',
  [
    ('500 steps', 500),
    (7, 7),
    ('2 epochs', 20),
    ('0.5epoch', 5),
    ('1e3 examples', 100),
  ],
)
def test_lengths_become_steps(text, steps):
  assert config.Length.parse(text).steps(batch_size=10, num_examples=100) == steps


def test_every_option_is_read_by_the_program():
  """A leaf that no module of the program mentions does nothing."""
  source = '\n'.join(
    p.read_text() for p in (ROOT / 'vit_jax').rglob('*.py') if 'config' not in p.parts
  )
  own = (ROOT / 'vit_jax/config/options.py').read_text()
  for name, _ in config.leaves(config.Config):
    leaf = name.split('.')[-1]
    read = rf'\.{leaf}\b|[\'"]{leaf}[\'"]'
    assert re.search(read, source) or re.search(rf'self\.{leaf}\b', own), f'{name} is never read'


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.name)
def test_every_experiment_file_is_valid_and_documented(path):
  parsed = config.load(str(path))
  assert parsed.model['name']
  assert f'--config=configs/{path.name}' in path.read_text().split('"""')[1]


def _with_arguments():
  """Every experiment file with every argument that it lists."""
  for path in sorted((ROOT / 'configs').glob('*.py')):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    takes = module.get_config.__code__.co_argcount
    default = ('it takes ARGUMENTS and lists none',) if takes else ()
    for argument in getattr(module, 'ARGUMENTS', default):
      yield pytest.param(path, argument, id=f'{path.name}:{argument}')


@pytest.mark.parametrize('path, argument', [*_with_arguments()])
def test_every_argument_of_an_experiment_file_is_valid(path, argument):
  parsed = config.load(f'{path}:{argument}')
  fields = models.fields(parsed.model['name']) | parsed.model
  patch = fields.get('patch_size', (1, 1))
  assert not any(size % patch[0] for size in parsed.input.image_size)
  with pytest.raises(UserError, match=re.escape(f'{path.name}:')):
    config.load(f'{path}:{argument}x')
