"""Whatever a stranger types is answered by one line that names it, before anything is computed."""

import importlib
import itertools
import logging
import pathlib
import random
import typing

import numpy as np
import pytest
from PIL import Image

import vit_jax.train
from tests.support import raises
from vit_jax import arguments, config, diff, main, models
from vit_jax.errors import ConfigError, UserError
from vit_jax.models.base import MODELS
from vit_jax.options import Length, rule_of
from vit_jax.training import experiment, loop

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS = f'--config={ROOT / "configs/vit_digits.py"}'
COMMANDS = (
  *('predict', 'features', 'evaluate', 'compare', 'probe', 'visualize', 'bench', 'convert'),
  *('export', 'serve'),
)


class Started(Exception):
  """The first computation of a run, which a wrong option must not reach."""


@pytest.fixture
def place(tmp_path, monkeypatch):
  """A folder to be in, with images, where no run and no model starts."""

  def start(*_, **__):
    raise Started

  for label in ('cat', 'dog'):
    (tmp_path / 'images' / label).mkdir(parents=True)
    for i in range(5):
      image = Image.fromarray(np.full((20, 20, 3), i, np.uint8))
      image.save(tmp_path / 'images' / label / f'{i}.png')
  (tmp_path / 'file').write_text('')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.setattr(experiment.Experiment, 'variables', start)
  monkeypatch.setattr(loop, 'compile_ahead', lambda *_: None)
  return tmp_path


def there(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


def refuse(place, run, words, *facts):
  """The words are refused by one line with these facts, and nothing is left of the attempt."""
  before = there(place)
  with pytest.raises(UserError) as caught:
    run(words)
  text = str(caught.value)
  missing = [fact for fact in map(str, facts) if fact not in text]
  assert not missing, f'{missing} not in: {text}'
  assert '\n' not in text and len(text) < 3000
  assert there(place) == before


WRONG = [
  # workdirs
  (['--workdir='], ['--workdir']),
  (['--workdir= '], ['--workdir']),
  (['--workdir=' + 'x' * 300], ['--workdir']),
  (['--workdir=a\0b'], ['--workdir']),
  (['--workdir=file'], ['--workdir', 'file']),
  (['--workdir=nosuch://bucket/run'], ['nosuch://bucket/run', 'nosuch']),
  (['--workdir=https://a.b/run'], ['--workdir', 'https://a.b/run', 'mount']),
  (
    ['--workdir=memory://bucket/images/run', '--config.dataset.name=memory://bucket/images'],
    ['--workdir', 'memory://bucket/images/run'],
  ),
  (['--workdir=nosuch://bucket/run', '--config.seed=x'], ['config.seed', 'nosuch://bucket/run']),
  (['--workdir=file/run'], ['--workdir', 'file']),
  (['--workdir=images', '--config.dataset.name=images'], ['--workdir', 'images']),
  (['--workdir=images/runs/a', '--config.dataset.name=images'], ['--workdir', 'images']),
  # other paths
  (['--config.dataset.name=/proc'], ['/proc']),
  (['--config.dataset.name=/'], ['/ ']),
  (['--config.dataset.name= '], ['config.dataset.name']),
  (['--config.dataset.name=nosuch://bucket/images'], ['nosuch://bucket/images']),
  (['--config.dataset.data_dir=s3://bucket/tfds'], ['config.dataset.data_dir', 's3://', 'copy']),
  (['--config.init_from=https://a.b/c.npz'], ['config.init_from', 'https://a.b/c.npz']),
  (['--config.dataset.name=' + 'x' * 300], ['config.dataset.name']),
  (['--config.init_from=' + 'x' * 300], ['config.init_from']),
  (['--config.init_from=~/none.npz'], ['home/none.npz']),
  (['--config.task.name=distill', '--config.task.teacher=vit_b17'], ['teacher', 'vit_b17']),
  (['--config.task.name=distill', '--config.task.teacher=no/such'], ['teacher', 'no/such']),
  # command lines
  (['--config.seed=1', '--config.seed=2'], ['config.seed', '2 times', "'1' and '2'"]),
  (['--workdir=other'], ['--workdir', '2 times']),
  (['--config.seed'], ['--config.seed=VALUE']),
  (['--config.model.a.b=3'], ["'model.a.b'"]),
  (['--config.model.num_classes=3'], ['config.model.num_classes', 'dataset']),
  (['--seed=3'], ['--config.seed=3']),
  (['--wrkdir=3'], ['--workdir']),
  (['--config.seed=' + '(' * 5000], ['config.seed']),
  (['--config.seed=' + '-' * 20000 + '1'], ['config.seed']),
  (['--config.seed=' + '9' * 6000], ['config.seed']),
  (["--config.seed='1'"], ['config.seed', 'an integer']),
  (['--config.input.train_transform=decode|resize(' + '-' * 9000 + '1)'], ['train_transform']),
  (['--config.input.train_transform=decode|resize(100000)'], ['8192', '100000']),
  # flags and options together
  (['--quite', '--config.lr=3', '--config.seed=x'], ["'--quiet'", "'lr'", 'config.seed']),
  (['--quiet', '--json', '--max_hours=-1', '--config.lr=3'], ['--json', '--max_hours', "'lr'"]),
  (['--process_id=2', '--config.lr=3'], ['--coordinator', "'lr'"]),
  (['--max_hours', '--config.lr=3'], ['--max_hours', "'lr'"]),
  (['--quite', '--config.dataset.name=no/such'], ["'--quiet'", 'no/such']),
  (['--quite', '--sweep=seed=1,x', '--config.lr=3'], ["'--quiet'", "'lr'", 'config.seed']),
  # splits, metrics and lengths
  (['--config.dataset.val=vall'], ["'vall'"]),
  (['--config.dataset.test=train[200%:]'], ['200%']),
  (['--config.total=1e30 epochs'], ['config.total', '2147483647']),
  (['--config.checkpoint.best=loss'], ['config.checkpoint.best_mode', "'min'"]),
  (['--config.checkpoint.best_mode=min'], ['config.checkpoint.best_mode', "'max'"]),
  (
    ['--config.plateau.factor=0.5', '--config.plateau.metric=accuracy'],
    ['config.plateau.mode', "'max'"],
  ),
  (
    ['--config.checkpoint.best=top5', '--config.dataset.classes=1,2,3'],
    ['config.checkpoint.best', 'top5'],
  ),
  (['--config.fewshot.every=1 epoch', '--config.dataset.val='], ['config.fewshot.every']),
  # many at once
  (
    ['--config.dataset.train=trian', '--config.dataset.test=train[', '--config.init_from=no.npz'],
    ["'trian'", "'train['", 'no.npz'],
  ),
  (
    [
      '--config.freeze=blocks:99',
      '--config.optimizer.multipliers=zzz=1,.*=1',
      '--config.plateau.factor=0.5',
      '--config.dataset.val=',
    ],
    ['blocks:99', "'zzz'", 'config.plateau'],
  ),
  (
    ['--config.seed=-1', '--config.dataset.name=no/such/', '--config.init_from=no.npz'],
    ['config.seed', 'no/such', 'no.npz'],
  ),
]


@pytest.mark.parametrize('words, facts', WRONG, ids=lambda value: '')
def test_a_wrong_run_is_refused_before_it_starts(place, words, facts):
  named = any(word.startswith('--workdir') for word in words) and '2 times' not in facts
  refuse(place, main.main, [DIGITS, *([] if named else ['--workdir=run']), *words], *facts)


@pytest.mark.parametrize(
  'words',
  [
    ['--workdir=.'],
    ['--workdir=~/runs/a'],
    ["--workdir=a=b,c:d e'f"],
    ['--workdir=run', "--config.dataset.classes=['3', '5']"],
    ['--workdir=run', "--config.dataset.classes=('3', '5')"],
    ['--workdir=run', '--config.batch_size=1_6'],
    ['--workdir=run', '--config.dataset.resplit=TRUE'],
    ['--workdir=run', '--config.dataset.name=~/../images'],
  ],
)
def test_what_is_right_is_not_refused(place, words):
  (place / 'home').mkdir()
  with pytest.raises(Started):
    main.main([DIGITS, *words])
  assert not (place / 'run').exists() and not (place / 'home' / 'runs').exists()


def test_options_that_have_no_effect_or_never_take_effect_are_told(place, caplog, capsys):
  words = ['--config.input.image_size=17', '--config.schedule.warmup=9 epochs']
  with pytest.raises(Started):
    main.main([DIGITS, '--workdir=run', '--config.total=1 epoch', *words])
  told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
  told += capsys.readouterr().err.splitlines()  # of the run, which has a console
  assert any('config.input.image_size=(17,)' in text and '16 x 16 pixels' in text for text in told)
  assert any('config.schedule.warmup' in text and "'1 epoch'" in text for text in told)


FILES = [
  ('syntax.py', 'def get_config(:\n', ['syntax.py, line 1']),
  ('text.txt', 'hello', ['text.txt', '.py']),
  ('exits.py', 'import sys\ndef get_config():\n  sys.exit(3)\n', ['exits.py, line 3']),
  ('binary.py', '\0\1', ['binary.py']),
]


@pytest.mark.parametrize('name, text, facts', FILES, ids=[row[0] for row in FILES])
def test_a_wrong_config_file_is_refused(place, name, text, facts):
  (place / name).write_text(text)
  refuse(place, main.main, [f'--config={place / name}', '--workdir=run'], *facts)


def test_what_is_missing_is_reported_with_what_is_wrong(place):
  missing = ['--config.lr=3', '--quite']
  refuse(place, main.main, missing, '--config', '--workdir', "'lr'", "'--quiet'")
  refuse(place, main.main, [DIGITS, *missing], '--workdir', "'lr'", "'--quiet'")
  refuse(place, main.main, ['--config=vit_digit', '--config.lr=3'], '--workdir', "'vit_digits'",
         "'lr'")  # fmt: skip
  refuse(place, diff.main, ['nosuch', DIGITS[9:], '--config.lr=3'], 'nosuch', "'lr'")


def test_an_argument_that_a_config_file_does_not_take_is_refused(place):
  refuse(place, main.main, [f'{DIGITS}:xyz', '--workdir=run'], 'vit_digits.py', "'xyz'")


@pytest.mark.parametrize('word', ['--sweep=', '--sweep=99', '--sweep=-1', '--sweep=lst'])
def test_a_wrong_member_of_a_sweep_is_refused(place, word):
  file = f'--config={ROOT / "configs/digits_sweep.py"}'
  refuse(place, main.main, [file, '--workdir=run', word], '--sweep')


VALID = {
  'predict': ['m', 'images'],
  'features': ['m', 'images', '--out=f.npz'],
  'evaluate': ['m'],
  'compare': ['a', 'b', '--out=o'],
  'probe': ['m', '--dataset=images', '--split_fractions=0.5,0,0.5'],
  'visualize': ['m', 'images', '--out=o'],
  'bench': ['vit_ti16'],
  'convert': ['w.npz', 'o.npz'],
  'export': ['m', '--out=o'],
  'serve': ['m'],
}

WRONG_FLAGS = [
  ('predict', ['', 'images'], ['model']),
  ('predict', ['m', ''], ['images']),
  ('predict', ['m', '/proc'], ['/proc']),
  ('predict', ['m', 'images', '--top-k=3'], ["'--top_k'"]),
  ('predict', ['m', 'images', '--batch_size=3', '--batch_size=4'], ['--batch_size', '2 times']),
  ('features', ['m', 'images', '--out=none/f.npz'], ['--out', 'none']),
  ('features', ['m', 'images', '--out=f.csv'], ['--out', '.npz']),
  ('evaluate', ['m', '--dataset='], ['--dataset']),
  ('evaluate', ['m', '--report=file/x'], ['--report', 'file']),
  ('compare', ['a', 'b', '--out=file'], ['--out', 'file']),
  ('probe', [*VALID['probe'][:2], '--split_fractions=0.5,0.5'], ['--split_fractions']),
  ('probe', [*VALID['probe'], '--method=knn', '--out=p.safetensors'], ['--out', 'linear']),
  ('visualize', ['m', 'images', '--out=o', '--image_size=0,5', '--count=0'], ['--image_size',
                                                                            '--count']),
  ('bench', ['vit_b17', '--batch_size=0'], ['vit_b16', '--batch_size']),
  ('bench', ['vit_ti16', '--set=num_classes=3'], ['num_classes']),
  ('bench', ['vit_ti16', '--json=none/x.json'], ['--json', 'none']),
  ('export', ['m', '--out=images', '--platforms=gpu'], ['--out', 'images', '--platforms']),
  ('export', ['m', '--out=file/o', '--format=onyx'], ['--out', 'file', '--format', 'stablehlo']),
  ('export', ['m', '--out=o', '--classes=none'], ['none']),
  ('serve', ['m', '--port=70000', '--max_mb=0'], ['--port', '--max_mb']),
  ('serve', ['m', '--host='], ['--host']),
  ('convert', ['w.npz', 'w.npz'], ['TARGET', 'w.npz']),
  ('convert', ['w.npz', 'none/o.npz', '--image_size=0'], ['TARGET', 'none', '--image_size']),
  ('convert', ['w.npz', 'o.npz', '--set==3', '--num_classes=-1'], ['--num_classes', '--set']),
  ('convert', ['w.npz', '--head=none'], ['TARGET', '--head']),
  ('predict', ['--top_k=0'], ['model', 'IMAGE', '--top_k']),
  ('predict', ['m', '/proc', '--top_k=0', '--classes=none'], ['/proc', '--top_k', 'none']),
  ('evaluate', ['m', '--batch_size=0', '--classes=none', '--process_id=3'],
   ['--batch_size', 'none', '--coordinator']),
  ('bench', ['vit_b17', '--set=3', '--compare=tim'], ['vit_b16', '--set', "'timm'"]),
  ('compare', ['a'], ['--out']),
]  # fmt: skip


@pytest.mark.parametrize('command, words, facts', WRONG_FLAGS)
def test_a_wrong_command_line_is_refused_before_a_model_is_read(place, command, words, facts):
  refuse(place, importlib.import_module(f'vit_jax.{command}').main, words, *facts)


def _wrong_texts(hint, rule):
  """Texts that an option of this type and rule must not take."""
  kinds = [k for k in typing.get_args(hint) or (hint,) if k is not type(None)]
  numeric = {int, float} & {*kinds, *itertools.chain(*(typing.get_args(k) for k in kinds))}
  texts = []
  if rule.valid:
    texts += ['nothing_like_it']
    # An empty list is one.
    texts += [] if typing.get_origin(hint) is tuple or '' in rule.valid else ['']
  elif numeric:
    texts += ['nan', '1e999', '-1e999', 'x', '5 apples', '{1: 2}', "b'1'", '1j', 'true']
    texts += [str(rule.low - 1)] if rule.low is not None else []
    texts += [str(rule.high + 1), str(10**400)] if rule.high is not None else []
    texts += [str(rule.above)] if rule.above is not None else []
    texts += [str(rule.below), str(rule.below + 1)] if rule.below is not None else []
  elif bool in kinds:
    texts += ['maybe', '1', '', '[true]']
  elif rule.parse in (Length.parse, Length.parse_positive):
    texts += ['soon', '-1 steps', '5 weeks', '1e999 steps', 'nan epochs', "'5 epochs'", '5 5']
  elif rule.path:
    texts += ['x' * 300, ' ', 'a\0b']
  return texts


def _wrong_options(rng):
  """Endless (name, text) of options that are not valid for a digits run."""
  stated = [(name, field.type, rule_of(field)) for name, field in config.leaves()]
  module = MODELS['vit_ti16'].module
  hints = typing.get_type_hints(module)
  known = models.fields('vit_ti16')
  stated += [
    (f'model.{name}', hints[name], rule_of(field))
    for name, field in module.__dataclass_fields__.items()
    if name in known
  ]
  while True:
    name, hint, rule = rng.choice(stated)
    if rng.random() < 0.2:
      at = rng.randrange(len(name))
      yield name[:at] + 'zq' + name[at + 1 :], '1'
    elif texts := _wrong_texts(hint, rule):
      yield name, rng.choice(texts)


def _try_configs(place, monkeypatch, count, seed):
  monkeypatch.setattr(vit_jax.train, 'train', lambda *_: pytest.fail('it was accepted'))
  options = _wrong_options(random.Random(seed))
  for pair in zip(itertools.islice(options, count), itertools.islice(options, count)):
    wrong = dict(pair)
    words = [f'--config.{name}={text}' for name, text in wrong.items()]
    facts = [name.split('.')[-1] for name in wrong]
    refuse(place, main.main, [DIGITS, '--workdir=run', *words], *facts)


def _try_commands(place, count, seed, monkeypatch):
  """Wrong values, unknown flags and flags that are given twice, of every command."""
  parsers = {}
  monkeypatch.setattr(
    arguments.Parser, 'read', lambda self, *_: parsers.setdefault('last', self) and _stop()
  )
  for command in COMMANDS:
    parsers.pop('last', None)
    with pytest.raises(Started):
      importlib.import_module(f'vit_jax.{command}').main(VALID[command])
    parsers[command] = parsers['last']
  monkeypatch.undo()
  monkeypatch.chdir(place)
  rng = random.Random(seed)
  tried = 0
  while tried < count:
    command = rng.choice(COMMANDS)
    parser = parsers[command]
    flag, kind, rule = rng.choice(list(parser._stated.values()))
    texts = _wrong_texts(kind, rule)
    if not flag.startswith('--') or not texts:
      continue
    words = [w for w in VALID[command] if not w.startswith(f'{flag}=')]
    case = rng.random()
    if case < 0.15:
      words, facts = [*words, f'{flag}=1', f'{flag}=1'], [flag, '2 times']
    elif case < 0.3:
      words, facts = [*VALID[command], f'{flag}zq=1'], [f'{flag}zq']
    else:
      words, facts = [*words, f'{flag}={rng.choice(texts)}'], [flag]
    if case >= 0.3 and words[-1].endswith('=') and parser.get_default(flag.strip('-')) in ('', ()):
      continue  # empty: none
    refuse(place, parser.parse_args, words, *facts)
    tried += 1


def _stop():
  raise Started


def test_wrong_configs_are_refused(place, monkeypatch):
  _try_configs(place, monkeypatch, 30, seed=0)


def test_wrong_flags_are_refused(place, monkeypatch):
  _try_commands(place, 60, 0, monkeypatch)


@pytest.mark.slow
def test_many_wrong_configs_and_flags_are_refused(place, monkeypatch):
  _try_configs(place, monkeypatch, 250, seed=1)
  _try_commands(place, 500, 1, monkeypatch)


def test_a_group_of_a_saved_config_may_be_anything(caplog):
  saved = {'task': 'boxes', 'dataset': {'name': 3, 'per_class': 2}, 'gone': 1, 'model': {'name': 5}}
  assert config.usable(saved) == {
    'task': config.schema()().to_json()['task'],
    'dataset': {'name': 'digits', 'per_class': 2},
    'model': {'name': 5},
  }
  (warning,) = [record.getMessage() for record in caplog.records]
  assert all(fact in warning for fact in ('config.task', 'config.dataset.name', 'gone'))


def test_numbers_out_of_range_name_the_option_and_the_range():
  with raises(ConfigError, 'config.optimizer.clip_norm', 'at most'):
    config.load(str(ROOT / 'configs/vit_digits.py'), {'optimizer.clip_norm': '1e300'})
