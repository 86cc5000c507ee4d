"""Trains or fine-tunes a model: `python -m vit_jax.main --config=FILE --workdir=DIR`."""

import argparse
import sys

from vit_jax import config
from vit_jax.arguments import Parser, split_overrides
from vit_jax.command_line import run_cli
from vit_jax.console import Console, show
from vit_jax.errors import ConfigError, Problems, one_line

_DESCRIPTION = """\
Trains or fine-tunes a model by a config file. The same command resumes an interrupted run.

examples:
  python -m vit_jax.main --config=configs/vit_digits.py --workdir=runs/digits
  python -m vit_jax.main --config=configs/vit_b16_dogs.py --workdir=runs/dogs \\
      --config.dataset.name=path/to/images --config.init_from=weights.npz
  python -m vit_jax.main --config=configs/finetune.py:vit_b16,cifar10 --workdir=runs/cifar
  python -m vit_jax.main --config=configs/digits_sweep.py --workdir=runs/sweep --sweep

A config file is Python code, which this command runs: take none from strangers unread.

sweeps: a config file may define the runs of a sweep, beside its get_config:

  def get_sweep():
    return options.product({'optimizer.learning_rate': (1e-3, 3e-3), 'seed': (0, 1, 2)})

or any list of such dictionaries. The command line may say them instead, as every combination of
some values, where one that holds a comma stands in brackets or quotes:

  --sweep='optimizer.learning_rate=1e-3,3e-3;seed=0,1,2'

or one --sweep for each option. --sweep trains them one after another, each in a folder of DIR named
by its options, skips those that are finished, continues where one fails, and ends with a table
(DIR/sweep.csv) and a page that compares them. --sweep=list numbers them, --sweep=K trains the K-th
alone, from 0, as a job array needs: --sweep=$SLURM_ARRAY_TASK_ID.
"""


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[str, str]]:
  parser = _Parser(
    'main',
    description=_DESCRIPTION,
    epilog='every option of a config, with its default:\n\n' + config.describe(),
  )
  parser.option('--config', str, 'config file', ..., metavar='FILE[:ARG]')
  parser.option('--workdir', str, "the run's folder", ..., metavar='DIR', path=True)
  parser.add_argument(
    '--sweep',
    nargs='?',
    action='append',
    const='all',
    default=[],
    metavar='K|NAME=VALUE,...',
    help="train all runs of the file's get_sweep or of the values given, or the K-th; or list them",
  )
  # Taken out first: argparse takes a value with a space, such as '5 epochs', for something else.
  others, overrides, found = split_overrides(sys.argv[1:] if argv is None else argv)
  problems = Problems()
  with problems.collect():
    args = parser.parse_args(others)
    args.swept, args.sweep = config.split_sweep(args.sweep)
  with problems.collect():
    if found:
      raise ConfigError(found)
  problems.raise_if_any()
  return args, overrides


class _Parser(Parser):
  def unknown(self, word: str) -> str:
    name, equals, value = word.lstrip('-').partition('=')
    same = [known for known, _ in config.leaves() if name in (known, known.split('.')[-1])]
    if equals and same:
      return f'unknown argument {word!r}: did you mean --config.{same[0]}={value}?'
    near = super().unknown(word)
    return near if 'did you mean' in near else f'{near}; options are --config.NAME=VALUE'


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, overrides = _parse(argv)
  if config.is_foreign(args.config):
    show(f'note: running {args.config}, which is Python code, as the config file', error=True)
  if args.sweep:
    return _sweep(args, overrides)
  options, problems = config.load_all(args.config, overrides)
  from vit_jax.train import train  # --help must not wait for it

  if problems:  # those of workdir, dataset and weights are reported with them
    from vit_jax.training.preparation import outer_problems

    raise ConfigError([*problems, *outer_problems(options, args.workdir)])
  train(options, args.workdir)
  return 0


def _sweep(args: argparse.Namespace, overrides: dict[str, str]) -> int:
  members = config.load_sweep(args.config, overrides, args.swept)
  if args.sweep == 'list':
    for k, name in enumerate(members):
      show(f'{k:4}  {one_line(name)}')
    return 0
  from vit_jax.training import sweep

  if args.sweep != 'all':
    sweep.run_one(members, config.pick(list(members), args.sweep), args.workdir)
    return 0
  words = [f'--config.{name}={value}' for name, value in overrides.items()]
  words += [f'--sweep={word}' for word in args.swept]
  command = [sys.executable, '-m', 'vit_jax.main', f'--config={args.config}']
  with Console():
    sweep.run_all(members, args.workdir, [*command, f'--workdir={args.workdir}', *words])
  return 0


if __name__ == '__main__':
  run_cli(main)
