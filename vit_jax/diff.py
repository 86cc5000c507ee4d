"""Shows which options differ between two configs: `python -m vit_jax.diff A B`."""

import json
import sys
from typing import Any

from vit_jax import config, models
from vit_jax.arguments import Parser, split_overrides
from vit_jax.command_line import run_cli
from vit_jax.console import align, show
from vit_jax.errors import Problems, one_line

_DESCRIPTION = """\
Shows the options that differ between two configs, a line each. A and B are each a config file (with
its argument: FILE:ARG), a run's folder, or a config.json. Without B, A is compared with the
defaults. --config.NAME=VALUE, as the command that trains has it, changes the last one before it is
compared. The status is 0 whether or not they differ, and 1 after an error.
"""
_EPILOG = """\
examples:
  python -m vit_jax.diff configs/vit_digits.py runs/digits
  python -m vit_jax.diff runs/a runs/b --json
  python -m vit_jax.diff configs/finetune.py:vit_b16,cifar10 --config.batch_size=32
"""


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  parser = Parser('diff', description=_DESCRIPTION, epilog=_EPILOG)
  parser.option('configs', tuple[str, ...], 'one or two configs', metavar='A [B]')
  parser.add_argument('--json', action='store_true', help='print {option: [of A, of B]}')
  words, overrides, problems = split_overrides(sys.argv[1:] if argv is None else argv)
  args, wrong = parser.read(words)
  found = Problems()
  found.add([*wrong, *problems])
  configs = list(args.configs or ())
  before = after = config.parse(config.default())
  if len(configs) > 2:
    found.add([f'two configs are compared, got {len(configs)}'])
  if len(configs) > 1:
    with found.collect():
      before = config.load_any(configs[0])
  with found.collect():
    if configs:
      after = config.load_any(configs[-1], overrides)
    else:
      found.add(config.override_problems(overrides))
  found.raise_if_any()
  changed = differences(before, after)
  if args.json:
    show(json.dumps(changed))
    return 0
  names = (configs[0] if len(configs) > 1 else 'default', configs[-1])
  rows = [[name, *map(_word, values)] for name, values in changed.items()]
  show(align([['option', *map(one_line, names)], *rows]) if rows else 'no option differs')
  return 0


def differences(a: config.Config, b: config.Config) -> dict[str, tuple[Any, Any]]:
  """The options that differ, by name, with both values; None for a field that a model lacks."""
  both = {name: (config.get(a, name), config.get(b, name)) for name, _ in config.leaves()}
  models_of = both.pop('model')
  defaults = [models.fields(m['name']) if m['name'] in models.names() else {} for m in models_of]
  for field in dict.fromkeys(name for model in models_of for name in model):
    both[f'model.{field}'] = (
      _plain(models_of[0].get(field, defaults[0].get(field))),
      _plain(models_of[1].get(field, defaults[1].get(field))),
    )
  return {name: values for name, values in both.items() if values[0] != values[1]}


def _plain(value: Any) -> Any:
  """Lists, as JSON has them, as the tuples of a config file."""
  return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _word(value: Any) -> str:
  if value in ('', (), None):
    return '-'
  return one_line(','.join(map(str, value)) if isinstance(value, tuple) else value)


if __name__ == '__main__':
  run_cli(main)
