"""Config files and command-line overrides."""

import dataclasses
import difflib
import importlib.machinery
import inspect
import pathlib
import re
import traceback
import types
from collections.abc import Mapping
from typing import Any

import ml_collections

from vit_jax import config_files, models
from vit_jax.config.options import Config, leaves, schema
from vit_jax.config.validation import parse_all, parse_saved, usable
from vit_jax.errors import ConfigError, Problems, UserError, did_you_mean, shown
from vit_jax.files import path_of, read_json
from vit_jax.options import from_text, rule_of

_HINTS = {
  'get_sweep': ': --sweep needs one, such as `def get_sweep(): return options.product('
  "{'optimizer.learning_rate': (1e-3, 3e-3), 'seed': (0, 1)})`",
}


def default() -> ml_collections.ConfigDict:
  """Every option at its default, locked: a config file edits this and returns it."""
  config = ml_collections.ConfigDict(dataclasses.asdict(schema()()), convert_dict=True)
  for name, field in leaves():
    if rule_of(field).words:  # a word is of another type than the value that it stands for
      config[name] = ml_collections.FieldReference(field.default, field_type=object)
  config.lock()
  config.model.unlock()  # a model's fields are its own; `parse` checks them
  return config


def load(
  path: str, overrides: Mapping[str, str] | None = None, values: Mapping[str, Any] | None = None
) -> Config:
  """Reads a config file, applies command-line overrides and checks the result.

  Args:
    path: 'FILE' or 'FILE:ARGUMENT', as `config_files.find` has it; the argument goes to the file's
      `get_config`.
    overrides: dotted names to values as typed, such as {'optimizer.learning_rate': '0.03'}.
    values: dotted names to values as they are, which a sweep sets.

  Raises:
    ConfigError: naming every problem found.
  """
  parsed, problems = load_all(path, overrides, values)
  if problems:
    raise ConfigError(problems)
  return parsed


def load_all(
  path: str, overrides: Mapping[str, str] | None = None, values: Mapping[str, Any] | None = None
) -> tuple[Config, list[str]]:
  """Like `load`, with the problems beside the options, which are at their defaults where wrong.

  Raises:
    ConfigError: the file itself is missing or fails.
  """
  try:
    config = run_function(path, 'get_config')
  except UserError as e:
    raise ConfigError([*e.problems, *override_problems(overrides or {})]) from e
  if not isinstance(config, ml_collections.ConfigDict):
    raise ConfigError(f'{path}: get_config must return config.default() edited, got {type(config)}')
  return _edited(config, overrides, values)


def load_any(what: str, overrides: Mapping[str, str] | None = None) -> Config:
  """The options of a config file, of a run's folder or of its config.json.

  Args:
    what: 'FILE' or 'FILE:ARGUMENT', a folder, or a name that ends in .json.
    overrides: as of `load`.

  Raises:
    ConfigError: naming every problem found.
  """
  file = pathlib.Path(path_of('the config', what))
  if file.is_dir():
    file = file / 'config.json'
  elif file.suffix != '.json':
    return load(what, overrides)
  found = read_json(file)
  if not isinstance(found, dict):
    raise ConfigError(f'{file} is {"damaged" if file.exists() else "missing"}: no options to read')
  if not overrides:
    return parse_saved(found)
  saved = default()
  saved.model = {'name': ''}
  for name, value in _flat(usable(found)).items():
    _set(saved, name, value)
  parsed, problems = _edited(saved, overrides, None)
  if problems:
    raise ConfigError(problems)
  return parsed


def _flat(options: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for name, value in options.items():
    group = isinstance(value, Mapping)
    flat |= _flat(value, f'{prefix}{name}.') if group else {prefix + name: value}
  return flat


def _edited(
  config: ml_collections.ConfigDict,
  overrides: Mapping[str, str] | None,
  values: Mapping[str, Any] | None,
) -> tuple[Config, list[str]]:
  """The options of `config` changed by `values`, then by `overrides`, and what is wrong."""
  typed, problems = _values_of(overrides or {})
  values = {**(values or {}), **typed}
  if values.get('model.name', config.model.name) != config.model.name:
    config.model = {'name': ''}  # the file's other fields were meant for its own model
  for name, value in values.items():
    try:
      _set(config, name, value)
    except ConfigError as e:
      problems += e.problems
  parsed, found = parse_all(config)
  return parsed, [*problems, *(p for p in found if p not in problems)]


def override_problems(overrides: Mapping[str, str]) -> list[str]:
  """What is wrong with command-line words whatever the config file is."""
  return _values_of(overrides)[1]


def _values_of(overrides: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
  """Command-line words as values by option, and what is wrong with the others."""
  problems = Problems()
  values = {}
  for name, text in overrides.items():
    with problems.collect():
      values[name] = value_of(name, text)
  return values, problems.sentences


def run_function(path: str, name: str) -> Any:
  """What a function of a config file returns.

  Args:
    path: 'FILE' or 'FILE:ARGUMENT'; the argument goes to the function, if it takes any.
    name: of the function.

  Raises:
    ConfigError: no such file or function; or anything that goes wrong in it, with its line.
  """
  file, argument = config_files.find(path)
  loader = importlib.machinery.SourceFileLoader('vit_jax_config_file', file)
  module = types.ModuleType(loader.name)
  module.__file__ = file
  try:
    loader.exec_module(module)
    function = getattr(module, name, None)
    if function is None:
      raise ConfigError(f'{file} has no function {name}(){_HINTS.get(name, "")}')
    takes = bool(inspect.signature(function).parameters)
    if argument and not takes and name == 'get_config':
      raise ConfigError(f'{file} takes no argument, got {shown(argument)} after the colon')
    return function(argument) if argument and takes else function()
  except UserError:
    raise
  # Whatever a user's file does wrong is reported with its line, sys.exit included.
  except (Exception, SystemExit) as e:
    own = [f for f in traceback.extract_tb(e.__traceback__) if f.filename == file]
    line = own[-1].lineno if own else getattr(e, 'lineno', None) or '?'
    reason = ' '.join(str(e).split())
    unknown = re.match(r'["\']?Key "(\w+)" does not exist', reason)
    if unknown:  # ConfigDict's own words list the whole group
      reason = _unknown_key(unknown[1])
    raise ConfigError(f'{file}, line {line}: {type(e).__name__}: {reason}') from e


def _field(name: str) -> dataclasses.Field:
  known = dict(leaves())
  if name not in known:
    raise ConfigError(_unknown_key(name))
  return known[name]


# What other programs call an option.
_ELSEWHERE = {
  'lr': 'optimizer.learning_rate',
  'wd': 'optimizer.weight_decay',
  'bs': 'batch_size',
  'epochs': 'total',
  'num_epochs': 'total',
  'steps': 'total',
  'img_size': 'input.image_size',
  'pretrained': 'init_from',
}


def _unknown_key(name: str) -> str:
  known = [name for name, _ in leaves()] + ['model.name']
  same_leaf = [k for k in known if k.split('.')[-1] == name.split('.')[-1]]
  by_leaf = {k.split('.')[-1]: k for k in reversed(known)}  # the first of a name
  near = did_you_mean(name, same_leaf or known)
  leaf = difflib.get_close_matches(name.split('.')[-1], by_leaf, n=1, cutoff=0.7)
  if leaf and not same_leaf:
    near = f'did you mean {by_leaf[leaf[0]]!r}?'
  if elsewhere := _ELSEWHERE.get(name.split('.')[-1]):
    near = f'did you mean {elsewhere!r}?'
  return f'unknown config key {shown(name)}: {near}'


def value_of(name: str, text: str) -> Any:
  """A command-line word as the value of an option: its type is the option's."""
  if name.startswith('model.'):
    return from_text(text, str if models.is_text(name.removeprefix('model.')) else Any)
  return from_text(text, _field(name).type)


def _set(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
  *groups, leaf = name.split('.')
  if groups != ['model'] or not leaf:
    _field(name)
  node = config
  for group in groups:
    node = node[group]
  with node.unlocked():
    if leaf in node:  # or its old value's type would be forced on it: true would become 1.0
      del node[leaf]
    node[leaf] = value  # `parse` checks types, all of them at once
