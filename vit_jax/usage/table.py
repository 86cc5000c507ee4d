"""Every config option as text: what it is called, its default, meaning and range."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

from vit_jax import files
from vit_jax.errors import UserError
from vit_jax.options import Rule, rule_of, to_text

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Row:
  """An option.

  Attributes:
    name: dotted, as after `--config.`.
    default: as one types it.
    help: meaning and unit.
    valid: the only values allowed; empty for any.
    range: the numbers allowed, in words.
  """

  name: str
  default: str
  help: str
  valid: tuple[str, ...]
  range: str

  @property
  def meaning(self) -> str:
    """Meaning, unit, values and range in one line."""
    details = [', '.join(self.valid), self.range]
    return self.help + ''.join(f' ({detail})' for detail in details if detail)


@dataclasses.dataclass(frozen=True)
class Group:
  """Options that stand together: a group of a config, or the fields of a family of models."""

  name: str
  help: str
  rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Model:
  """A model's name: whose fields it has, and what it sets them to, as one types it."""

  family: str
  preset: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
  """All options.

  Attributes:
    groups: of a config, by name; those that stand in no group are 'general'.
    families: fields of models, by the name of their class.
    models: by name.
  """

  groups: dict[str, Group]
  families: dict[str, Group]
  models: dict[str, Model]

  @property
  def rows(self) -> dict[str, Row]:
    """The options of all groups by name."""
    return {row.name: row for group in self.groups.values() for row in group.rows}

  def model_fields(self, name: str) -> Group:
    """The fields of a model, with the defaults that its name stands for."""
    model = self.models[name]
    family = self.families[model.family]
    rows = [
      dataclasses.replace(row, default=model.preset.get(row.name, row.default))
      for row in family.rows
    ]
    return Group(name, family.help, tuple(rows))


def load() -> Table:
  """The table of this version of the program: from the cache folder, or gathered and kept there.

  The cache is used only where the program's files are byte for byte those that it was made from,
  and not where $VIT_JAX_PLUGINS may add options.
  """
  if os.environ.get('VIT_JAX_PLUGINS'):
    return _gather()
  key = _key()
  with contextlib.suppress(UserError):  # no home folder
    path = files.cache_folder() / 'options.json'
    with contextlib.suppress(AttributeError, KeyError, TypeError):  # not written by this program
      found = files.read_json(path)
      if found['key'] == key:
        return _from_json(found['table'])
    table = _gather()
    with contextlib.suppress(UserError):  # a folder that cannot be written
      files.make_folder(path.parent)
      files.write_text(path, json.dumps({'key': key, 'table': dataclasses.asdict(table)}))
    return table
  return _gather()


def _key() -> str:
  """Changes with every change of the program and of Python."""
  digest = hashlib.blake2b(sys.version.encode())
  for path in sorted(_PACKAGE.rglob('*.py')):
    text = path.read_bytes()
    digest.update(f'{path.relative_to(_PACKAGE)} {len(text)}\n'.encode())
    digest.update(text)
  return digest.hexdigest()


def _from_json(value: dict[str, Any]) -> Table:
  def groups(found: dict[str, Any]) -> dict[str, Group]:
    return {
      name: Group(
        name=group['name'],
        help=group['help'],
        rows=tuple(Row(**{**row, 'valid': tuple(row['valid'])}) for row in group['rows']),
      )
      for name, group in found.items()
    }

  return Table(
    groups=groups(value['groups']),
    families=groups(value['families']),
    models={name: Model(**model) for name, model in value['models'].items()},
  )


def _gather() -> Table:
  from vit_jax.config.options import group_of, leaves, schema  # imports JAX
  from vit_jax.models.base import MODELS

  models, families = _models(MODELS)
  first = schema()().model['name']
  named = Row('model.name', first, 'the model; its fields are options too', tuple(models), '')
  general, groups = [], {}
  for field in dataclasses.fields(schema()):
    if field.name == 'model':
      groups['model'] = Group('model', 'the model and its fields', (named,))
    elif (kind := group_of(field)) is not None:
      rows = tuple(_row(name, f.default, rule_of(f)) for name, f in leaves(kind, f'{field.name}.'))
      groups[field.name] = Group(field.name, rule_of(field).help, rows)
    else:
      general.append(_row(field.name, field.default, rule_of(field)))
  first_of_all = {'general': Group('general', 'length, batch size and weights', tuple(general))}
  return Table(first_of_all | groups, families, models)


def _models(registry: Any) -> tuple[dict[str, Model], dict[str, Group]]:
  from vit_jax.config.validation import SET_ELSEWHERE
  from vit_jax.models import fields

  models, families = {}, {}
  for name in sorted(registry):
    module = registry[name].module
    preset = {f'model.{k}': to_text(v) for k, v in registry[name].preset.items()}
    models[name] = Model(module.__name__, preset)
    rows = [
      _row(f'model.{f.name}', f.default, rule_of(f))
      for f in dataclasses.fields(module)
      if f.name in fields(name) and f.name not in SET_ELSEWHERE
    ]
    about = (module.__doc__ or '').partition('\n')[0]
    families[module.__name__] = Group(module.__name__, about, tuple(rows))
  return models, dict(sorted(families.items()))


def _row(name: str, default: Any, rule: Rule) -> Row:
  return Row(name, to_text(default), rule.help, tuple(map(str, rule.valid)), rule.range)
