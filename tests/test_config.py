"""Options: defaults, overrides, files, and every mistake reported at once."""

import dataclasses
import importlib.util
import json
import pathlib
import re
import typing

import pytest

from tests.support import raises
from vit_jax import config, main, models
from vit_jax.errors import ConfigError
from vit_jax.models.base import MODELS
from vit_jax.options import option, rule_of
from vit_jax.tasks import LOSSES, TASKS, Loss
from vit_jax.usage import pages

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = str(ROOT / 'configs/vit_digits.py')


def test_defaults_survive_the_round_trip():
  assert config.parse(config.default()) == config.schema()()
  saved = json.loads(json.dumps(config.parse(config.default()).to_json()))
  assert config.parse(saved) == config.schema()()


def test_the_schema_has_the_options_of_registered_components():
  known = {name for name, _ in config.leaves()}
  assert {'optimizer.b1', 'schedule.timescale', 'task.teacher', 'task.loss'} <= known
  plain = {name for name, _ in config.leaves(config.Config)}
  assert plain < known and not {'optimizer.b1', 'task.loss'} & plain
  made = config.schema()()
  assert isinstance(made, config.Config) and isinstance(made.optimizer, config.Optimizer)
  assert config.get(made, 'task.loss') == 'softmax' and config.get(made, 'model.name') == 'vit_ti16'


def test_registering_a_component_extends_the_schema(monkeypatch):
  @dataclasses.dataclass(frozen=True)
  class Made(Loss):
    made_up: float = option(0.5, 'made_up: a number', low=0, high=1)

  before = config.schema()
  monkeypatch.setitem(LOSSES._entries, 'made', Made)
  monkeypatch.setitem(TASKS._entries, 'other', TASKS['classify'])
  assert dict(config.leaves())['task.made_up'].default == 0.5
  with raises(ConfigError, 'config.task.made_up', 'at most 1'):
    config.load(DIGITS, {'task.made_up': '2', 'task.loss': 'made'})
  monkeypatch.undo()
  assert config.schema() is before


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


def test_all_problems_are_reported_at_once_with_the_nearest_names():
  with pytest.raises(ConfigError) as caught:
    config.load(
      DIGITS,
      {
        'optimizer.lerning_rate': '1',
        'batch_size': 'many',
        'parallel': 'pmapp',
        'optimizer.name': 'adam',
        'total': '5 weeks',
        'ema.decay': '1',
      },
    )
  assert len(caught.value.problems) == 6
  for facts in (
    ("'optimizer.lerning_rate'", "'optimizer.learning_rate'"),
    ('config.batch_size', 'an integer', "'many'"),
    ("config.parallel='pmapp'", "'pmap'"),
    ("config.optimizer.name='adam'", "'adamw'"),
    ('config.total', "'5 weeks'", "'5 epochs'"),
    ('config.ema.decay', 'below 1'),
  ):
    assert any(all(f in problem for f in facts) for problem in caught.value.problems), facts


def test_combinations_are_reported_with_the_rest():
  with raises(ConfigError, 'config.seed', 'config.accumulate=3', '9 or 12') as caught:
    config.load(DIGITS, {'seed': '-1', 'batch_size': '10', 'accumulate': '3'})
  assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
  'overrides, facts',
  [
    ({'total': '5 weeks'}, ['config.total', "'500 steps'"]),
    ({'total': '0 epochs'}, ['config.total', "'0 epochs'"]),
    ({'schedule.timescale': '0 steps'}, ['config.schedule.timescale', "'0 steps'"]),
    ({'schedule.warmup': 'soon'}, ['config.schedule.warmup', "'soon'"]),
    ({'batch_size': '10', 'accumulate': '3'}, ['config.accumulate=3', '9 or 12']),
    ({'head': 'keep'}, ["config.head='keep'", 'config.init_from']),
    ({'dataset.split_fractions': '0.5,0.2,0.2'}, ['config.dataset.split_fractions', '0.5']),
    ({'dataset.split_fractions': '0.5,0.5'}, ['config.dataset.split_fractions', '3 values']),
    ({'optimizer.decay': '(=1'}, ['config.optimizer.decay', "'(=1'"]),
    ({'optimizer.gsam_alpha': '0.1'}, ['config.optimizer.gsam_alpha', 'config.optimizer.sam_rho']),
    ({'freeze': '('}, ['config.freeze', "'('"]),
    ({'task.label_smoothing': '1.0'}, ['config.task.label_smoothing', 'below 1', '1.0']),
    ({'optimizer.learning_rate': '1e5'}, ['config.optimizer.learning_rate', 'at most 10000']),
    ({'optimizer.learning_rate': '0'}, ['config.optimizer.learning_rate', 'above 0']),
    ({'optimizer.b1': '1'}, ['config.optimizer.b1', 'below 1']),
    ({'mixing.mixup': '-0.2'}, ['config.mixing.mixup', 'at least 0']),
    ({'model.name': 'vit_b17'}, ['config.model', "'vit_b17'", "'vit_b16'"]),
    ({'model.pol': 'gap'}, ['config.model', "'pol'", "'pool'"]),
    ({'model.depth': '0'}, ['config.model', "'depth'", 'at least 1']),
    ({'input.train_transform': 'decode|inception_crp(8)'}, ["'inception_crop'"]),
    ({'model.patch_size': '3'}, ['config.input.image_size', '16x16', '3x3', '15x15']),
    ({'plateau.factor': '0.5', 'plateau.metric': 'los'}, ["config.plateau.metric='los'", "'loss'"]),
    ({'early_stopping.patience': '2', 'early_stopping.metric': 'iou'}, ["'iou'", 'accuracy']),
    ({'checkpoint.best': 'acuracy'}, ["config.checkpoint.best='acuracy'", "'accuracy'"]),
    ({'task.name': 'boxes', 'mixing.cutmix': '1'}, ["'boxes'", 'config.mixing.cutmix=0']),
    ({'task.name': 'distill'}, ['config.task.teacher']),
    ({'optimizer': '3'}, ["'optimizer'"]),
  ],
)
def test_impossible_values_are_refused(overrides, facts):
  with raises(ConfigError, *facts) as caught:
    config.load(DIGITS, overrides)
  assert len(caught.value.problems) == 1


def test_a_group_that_is_no_group_is_refused():
  with raises(ConfigError, 'config.optimizer', 'config.model'):
    config.parse({'optimizer': 3, 'model': 'vit_b16'})


def test_options_of_other_components_are_warned_about(caplog):
  overrides = {'optimizer.name': 'sgd', 'optimizer.b1': '0.8', 'task.teacher_cache': 'x'}
  config.load(DIGITS, overrides)
  warned = [record.getMessage() for record in caplog.records]
  assert len(warned) == 2
  assert all(fact in warned[0] for fact in ('config.task.teacher_cache', "'classify'"))
  assert all(fact in warned[1] for fact in ('config.optimizer.b1', "'sgd'"))
  caplog.clear()
  config.load(DIGITS, {'optimizer.name': 'adamw', 'optimizer.b1': '0.8'})
  assert not caplog.records


def test_a_saved_config_of_another_version_is_read(caplog):
  saved = {
    'seed': 7,
    'gone': 3,
    'task': {'name': 'boxes', 'box_from': 'places', 'old': 1},
    'dataset': {'classes': ['a', 'b']},
    'optimizer': {'learning_rate': 1e9},
  }
  parsed = config.parse_saved(saved)
  assert parsed.seed == 7 and parsed.task.box_from == 'dense'
  assert parsed.dataset.classes == ('a', 'b') and parsed.batch_size == 64
  assert parsed.optimizer.learning_rate == 0.01  # outside of the range: at its default
  (warning,) = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
  assert 'config.optimizer.learning_rate' in warning


def test_the_name_of_version_0_1_for_dense_boxes_is_read():
  assert config.load(DIGITS, {'task.name': 'boxes', 'task.box_from': 'places'}).task.box_from == (
    'dense'
  )


def test_a_mistake_in_a_file_names_its_line(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text(
    'from vit_jax import config as options\n\ndef get_config():\n  config = options.default()\n'
    '  config.optimizer.learnin_rate = 3\n  return config\n'
  )
  with raises(ConfigError, 'mine.py, line 5', "'learnin_rate'", 'learning_rate'):
    config.load(str(file))
  with raises(ConfigError, 'absent.py'):
    config.load(str(tmp_path / 'absent.py'))


@pytest.mark.parametrize(
  'line, fact', [('sys.exit(3)', 'SystemExit'), ('raise SystemExit', 'SystemExit'), ('exit()', '')]
)
def test_a_file_that_ends_the_program_is_a_mistake_in_its_line(tmp_path, line, fact):
  file = tmp_path / 'mine.py'
  file.write_text(f'import sys\ndef get_config():\n  {line}\n')
  with raises(ConfigError, 'mine.py, line 3', fact):
    config.load(str(file))
  file.write_text(f'import sys\n\n\n{line}\n')
  with raises(ConfigError, 'mine.py, line 4', fact):
    config.load(str(file))


def test_ctrl_c_within_a_file_is_ctrl_c(tmp_path):
  file = tmp_path / 'mine.py'
  file.write_text('raise KeyboardInterrupt\n')
  with pytest.raises(KeyboardInterrupt):
    config.load(str(file))


def test_that_a_file_is_run_is_noted_unless_it_is_one_of_ours(tmp_path, capsys):
  file = tmp_path / 'configs' / 'mine\x1b[2J.py'
  file.parent.mkdir()
  file.write_text('raise KeyboardInterrupt\n')
  with pytest.raises(KeyboardInterrupt):
    main.main([f'--config={file}:7', f'--workdir={tmp_path}/run'])
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('note:') and 'mine\\x1b[2J.py:7' in line and 'Python' in line
  for ours in (DIGITS, f'{DIGITS}:7', 'configs/absent.py', str(tmp_path / 'absent.py')):
    assert not config.is_foreign(ours)


def test_every_option_is_read_by_the_program():
  """An option that no module of the program mentions does nothing."""
  source = '\n'.join(
    p.read_text() for p in (ROOT / 'vit_jax').rglob('*.py') if 'config' not in p.parts
  )
  own = (ROOT / 'vit_jax/config/options.py').read_text()
  for name, _ in config.leaves():
    leaf = name.split('.')[-1]
    read = rf'\.{leaf}\b|[\'"]{leaf}[\'"]'
    assert re.search(read, source) or re.search(rf'self\.{leaf}\b', own), f'{name} is never read'


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda p: p.name)
def test_every_config_file_is_valid_and_documented(path):
  parsed = config.load(str(path))
  assert parsed.model['name']
  assert f'--config=configs/{path.name}' in path.read_text().split('"""')[1]


def _with_arguments():
  """Every config file with every argument that it lists."""
  for path in sorted((ROOT / 'configs').glob('*.py')):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    takes = module.get_config.__code__.co_argcount
    default = ('it takes ARGUMENTS and lists none',) if takes else ()
    for argument in getattr(module, 'ARGUMENTS', default):
      yield pytest.param(path, argument, id=f'{path.name}:{argument}')


@pytest.mark.parametrize('path, argument', [*_with_arguments()])
def test_every_argument_of_a_config_file_is_valid(path, argument):
  parsed = config.load(f'{path}:{argument}')
  fields = models.fields(parsed.model['name']) | parsed.model
  patch = fields.get('patch_size', (1, 1))
  assert not any(size % patch[0] for size in parsed.input.image_size)
  with raises(ConfigError, f'{path.name}:'):
    config.load(f'{path}:{argument}x')


def test_every_option_has_help_text():
  missing = [name for name, field in config.leaves() if not field.metadata.get('help') and not
             rule_of(field).help]  # fmt: skip
  for name, entry in MODELS.items():
    missing += [f'{name}.{f}' for f, field in _fields_of(entry.module) if not rule_of(field).help]
  assert not missing
  described = pages.page('all', {}, {})
  assert all(f'--config.{name}' in described for name, _ in config.leaves())


def _fields_of(module):
  """The fields of a model that can be set, by name."""
  own = ('parent', 'name', 'num_classes')
  return [(f.name, f) for f in dataclasses.fields(module) if f.name not in own]


def _is_numeric(hint):
  parts = typing.get_args(hint)
  return hint in (int, float) or any(_is_numeric(part) for part in parts)


def test_every_numeric_option_states_a_range():
  """A number that no rule bounds on at least one side lets nonsense in."""
  numeric = [(name, f.type, rule_of(f)) for name, f in config.leaves() if _is_numeric(f.type)]
  for entry in MODELS.values():
    hints = typing.get_type_hints(entry.module)
    numeric += [
      (f'{entry.module.__name__}.{name}', hints[name], rule_of(field))
      for name, field in _fields_of(entry.module)
      if _is_numeric(hints[name])
    ]
  assert len(numeric) > 60
  unbounded = {name for name, _, rule in numeric if not (rule.range or rule.valid)}
  assert not unbounded


@pytest.mark.parametrize('field', ['position_embedding', 'remat'])
@pytest.mark.parametrize('word', ['none', 'None'])
def test_none_is_a_word_where_a_model_has_a_text(field, word):
  if word == 'None':
    with raises(ConfigError, field, 'None'):
      config.load(DIGITS, {f'model.{field}': word})
    return
  assert config.load(DIGITS, {f'model.{field}': word}).model[field] == 'none'
  swept = config.load_sweep(
    DIGITS, {}, [f'model.{field}=none,{"block" if field == "remat" else "learned"}']
  )
  assert [c.model[field] for _, c in swept.values()][0] == 'none' and len(swept) == 2


@pytest.mark.parametrize(
  'word, option', [('lr', 'optimizer.learning_rate'), ('epochs', 'total'), ('bs', 'batch_size')]
)
def test_what_others_call_an_option_is_known(word, option):
  with raises(ConfigError, f"'{word}'", f"did you mean '{option}'?"):
    config.load(DIGITS, {word: '1'})
