"""Pages of help: one screen, a group of options, all of them, the values of a config."""

import dataclasses
import pathlib
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax import config_files
from vit_jax.errors import ConfigError, did_you_mean
from vit_jax.options import to_text
from vit_jax.usage.table import Group, Row, Table, load

_WIDTH = 100
_NARROW = 80
_VALUE = 36  # longest value beside which its default stands
_HEADING = """\
# Options

Every option of a config: `config.NAME = VALUE` in a config file, `--config.NAME=VALUE` on the
command line. Defaults are written as one types them: a tuple is `A,B`. This page is made by
`python -m vit_jax.main --help=markdown > docs/options.md`, not by hand.
"""


def overview() -> str:
  """The groups of options, a line each, for the end of the first screen."""
  groups = load().groups
  width = max(map(len, groups))
  lines = [_cut(f'  {g.name:{width}}  {_leaves(g)}', _NARROW) for g in groups.values()]
  topics = (
    '--help=GROUP describes the options of a group, --help=all all of them, --help=vit_b16 the '
    'fields of a model, --help=configs config files, --help=sweeps sweeps, --help=processes '
    '--processes=N; --config=FILE --help what FILE sets.'
  )
  return '\n'.join(
    [
      'options of a config, --config.GROUP.NAME=VALUE (general: --config.NAME=VALUE):',
      *lines,
      '',
      *textwrap.wrap(topics, _NARROW, break_on_hyphens=False),
    ]
  )


def page(topic: str, values: Mapping[str, str], own: Mapping[str, str]) -> str:
  """The page of a topic.

  Args:
    topic: a group, an option, a model, 'all', 'configs', 'markdown' or one of `own`.
    values: of a config, by option, shown in the place of defaults; empty: none.
    own: texts of the command's own topics.

  Raises:
    ConfigError: there is no such topic.
  """
  table = load()
  topic = topic.removeprefix('--').removeprefix('config.')
  if topic in own:
    return own[topic]
  if topic == 'configs':
    return _configs()
  if topic == 'markdown':
    return _markdown(table)
  model = values.get('model.name', '')
  if topic == 'all':
    return '\n\n'.join(_group(table, g, values, model) for g in table.groups.values())
  if topic in table.groups:
    return _group(table, table.groups[topic], values, model)
  if topic in table.models:
    return _rows(table.model_fields(topic), values if topic == model else {})
  known = [row for row in [*table.rows.values(), *_fields(table, model)] if _is_of(topic, row.name)]
  if known:
    return _rows(Group(topic, '', tuple(known)), values)
  topics = [*table.groups, *own, 'all', 'configs', 'markdown']
  near = did_you_mean(topic, topics, every_up_to=100)
  if 'did you mean' not in near:
    further = did_you_mean(topic, [*table.models, *table.rows], every_up_to=0)
    near = further if 'did you mean' in further else near
  raise ConfigError(f'--help={topic}: {near}')


def of_config(word: str, config: Any) -> str:
  """What a config sets: options that are not at their defaults.

  Args:
    word: what --config was given.
    config: the options.
  """
  table, values = load(), values_of(config)
  path = config_files.find(word)[0]
  defaults = _defaults(table, values)
  changed = {name: text for name, text in values.items() if text != defaults.get(name)}
  rows = [(name, text, defaults.get(name, '')) for name, text in changed.items()]
  more = (
    f'The other {len(values) - len(changed)} options are at their defaults. --config={word} '
    f'--help=all, or --help=GROUP, describes them all with the values of this config; groups: '
    f'{", ".join(table.groups)}.'
  )
  return '\n'.join(
    [
      f'{path}: {config_files.summary(pathlib.Path(path))}',
      '',
      *_columns([('option', 'value', 'default'), *rows]),
      '',
      *textwrap.wrap(more, _WIDTH, break_on_hyphens=False),
    ]
  )


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
  """Rows of name, value and default; where a value is too long the default stands below it."""
  first = max(len(row[0]) for row in rows)
  second = max([len(row[1]) for row in rows if len(row[1]) <= _VALUE])
  lines = []
  for name, value, default in rows:
    if len(value) > second:
      lines.append(f'  {name:{first}}  {value}')
      name, value = '', ''
    lines.append(f'  {name:{first}}  {value:{second}}  {default}'.rstrip())
  return lines


def values_of(config: Any) -> dict[str, str]:
  """The options of a config by dotted name, as one types them; of the model those that it sets."""
  found = {}

  def visit(value: Any, name: str) -> None:
    if isinstance(value, Mapping):
      for key, inner in value.items():
        visit(inner, f'{name}.{key}' if name else key)
    else:
      found[name] = to_text(value)

  visit(config.to_json(), '')
  return found


def _defaults(table: Table, values: Mapping[str, str]) -> dict[str, str]:
  rows = [*table.rows.values(), *_fields(table, values.get('model.name', ''))]
  return {row.name: row.default for row in rows}


def _fields(table: Table, model: str) -> tuple[Row, ...]:
  return table.model_fields(model).rows if model in table.models else ()


def _group(table: Table, group: Group, values: Mapping[str, str], model: str) -> str:
  if group.name != 'model':
    return _rows(group, values)
  (named,) = group.rows
  group = dataclasses.replace(group, rows=(dataclasses.replace(named, valid=()),))
  lines = [_rows(group, values), '']
  for family in table.families.values():
    names = [name for name, m in table.models.items() if m.family == family.name]
    lines += _wrapped(f'{", ".join(names)}', 6)
  if _fields(table, model):
    return '\n'.join([*lines, '', _rows(table.model_fields(model), values)])
  return '\n'.join([*lines, '', '  --help=NAME describes the fields of a model.'])


def _rows(group: Group, values: Mapping[str, str]) -> str:
  """The options of a group; those that differ from their defaults are marked."""
  about = group.help if group.help != group.name else ''
  lines = [f'{group.name}: {about}' if about else group.name]
  for row in group.rows:
    value = values.get(row.name, row.default)
    line = f'--config.{row.name}={shlex.quote(value) if value else ""}'
    if value == row.default:
      lines.append(f'  {line}')
    else:
      lines.append(f'* {line}  (default: {shlex.quote(row.default)})')
    lines += _wrapped(row.meaning, 6)
  return '\n'.join(lines)


def _configs() -> str:
  known = config_files.known()
  width = max(map(len, known), default=0)
  lines = [_cut(f'  {n:{width}}  {config_files.summary(p)}', _WIDTH) for n, p in known.items()]
  return '\n'.join(['config files, --config=NAME; yours stand in ./configs:', *lines])


def _markdown(table: Table) -> str:
  parts = [_HEADING]
  for group in table.groups.values():
    parts.append(f'## {group.name}\n\n{_sentence(group.help)}\n\n{_markdown_rows(group.rows)}')
    if group.name == 'model':
      for family in table.families.values():
        names = [f'`{name}`' for name, m in table.models.items() if m.family == family.name]
        listed = '\n'.join(textwrap.wrap(f'Models: {", ".join(names)}.', 120))
        rows = _markdown_rows(family.rows)
        parts.append(f'### {family.name}\n\n{family.help}\n\n{listed}\n\n{rows}')
  return '\n'.join(parts).rstrip('\n')


def _markdown_rows(rows: Iterable[Row]) -> str:
  lines = ['| option | default | meaning |', '|---|---|---|']
  for row in rows:
    valid = () if row.name == 'model.name' else row.valid  # listed below it
    cells = (f'`{row.name}`', row.default and f'`{row.default}`', _plain(row, valid))
    lines.append('| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |')
  return '\n'.join(lines) + '\n'


def _plain(row: Row, valid: tuple[str, ...]) -> str:
  """The meaning for Markdown, which reads stars, underscores and angles otherwise."""
  text = dataclasses.replace(row, valid=valid).meaning
  for letter in '\\*_<[':
    text = text.replace(letter, f'\\{letter}')
  return text


def _sentence(text: str) -> str:
  return f'{text[:1].upper()}{text[1:]}.'


def _leaves(group: Group) -> str:
  names = ', '.join(row.name.split('.')[-1] for row in group.rows)
  return f'{names}, and the fields of that model' if group.name == 'model' else names


def _is_of(topic: str, name: str) -> bool:
  return topic in (name, name.split('.')[-1])


def _wrapped(text: str, indent: int) -> list[str]:
  space = ' ' * indent
  return textwrap.wrap(
    text, _WIDTH, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
  )


def _cut(line: str, width: int) -> str:
  return line if len(line) <= width else line[: width - 3].rpartition(' ')[0] + ' ...'
