"""Trains or fine-tunes a model: `python -m vit_jax.main --config=FILE --workdir=DIR`."""

import argparse
import json
import sys
from typing import Any

from vit_jax import config_files, machine, processes
from vit_jax.arguments import Parser, split_overrides
from vit_jax.command_line import run_cli, typed
from vit_jax.console import show
from vit_jax.errors import ConfigError, InterruptedRunError, Problems, one_line
from vit_jax.usage import pages

_DESCRIPTION = """\
Trains or fine-tunes a model; the same command resumes an interrupted run.

examples:
  python -m vit_jax.main --config=vit_digits --workdir=runs/digits
  python -m vit_jax.main --config=vit_b16_dogs --workdir=runs/dogs \\
      --config.dataset.name=path/to/images --config.init_from=weights.npz
  python -m vit_jax.main --config=finetune:vit_b16,cifar10 --workdir=runs/cifar
"""

_USAGE = '%(prog)s --config=FILE[:ARG] --workdir=DIR [options]'

_SWEEPS = """\
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

  python -m vit_jax.main --config=digits_sweep --workdir=runs/sweep --sweep
"""


_PROCESSES = """\
processes: several of them run the same command and compute as one, on one machine or on many.

  --processes=N          starts N here: on GPUs each has one, else its share of the cores;
                         1 runs alone, whatever a cluster says
  --coordinator=HOST:PORT --process_id=I --process_count=N
                         process I of N that are started elsewhere; process 0 is at HOST
  --process_timeout=60   seconds after which one that is silent or stands still ends the others

SLURM, Open MPI up to version 4, Kubernetes JobSets and TPU pods say all of this by themselves.
Where one process ends or hangs the others end with one line that names it, and status 1; SIGTERM,
SIGHUP, SIGUSR1 and Ctrl-C in any of them save in all, with status 128 and the signal's number. The
same command resumes.

  python -m vit_jax.main --config=vit_digits --workdir=runs/digits --processes=2
  srun python -m vit_jax.main --config=vit_b16_dogs --workdir=runs/dogs
"""


_TOPICS = {'sweeps': _SWEEPS, 'processes': _PROCESSES}


def _parser() -> '_Parser':
  parser = _Parser('main', description=_DESCRIPTION, usage=_USAGE, add_help=False)
  parser.add_argument(
    '-h', '--help', action=_Help, nargs='?', metavar='TOPIC', help='this, or the page of a topic'
  )
  parser.option(
    '--config', str, 'config file or its name; it is run as Python', ..., metavar='FILE[:ARG]'
  )
  parser.option('--workdir', str, "the run's folder", ..., metavar='DIR', path=True, remote=True)
  parser.add_argument(
    '--sweep',
    nargs='?',
    action='append',
    const='all',
    default=[],
    metavar='K|NAME=VALUE,...',
    help='train all runs of a sweep, or the K-th; or list them',
  )
  processes.flags(parser)
  parser.option(
    '--max_hours',
    float,
    'end within H hours, all saved, with status 75 if unfinished',
    0.0,
    metavar='H',
    low=0,
  )
  add = parser.add_argument
  add('--quiet', action='store_true', help='print warnings, errors and the result alone')
  add('--json', action='store_true', help='print one JSON object a line: plan, rows, summary')
  dry_run = 'show plan, measured time and memory, augmented images'
  add('--dry_run', action='store_true', help=dry_run)
  replay = 'say where in the last step it was not finite'
  add('--replay', action='store_true', help=replay)
  return parser


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[str, str]]:
  # Taken out first: argparse takes a value with a space, such as '5 epochs', for something else.
  others, overrides, found = split_overrides(sys.argv[1:] if argv is None else argv)
  args, wrong = _parser().read(others)
  problems = Problems()
  problems.add(wrong)
  with problems.collect():
    args.swept, words, args.sweep = [], args.sweep, ''
    if words:
      from vit_jax import config  # --help must not wait for JAX

      args.swept, args.sweep = config.split_sweep(words)
  with problems.collect():
    if args.quiet and args.json:
      raise ConfigError('--quiet and --json are two ways to print: use one of them')
    if args.replay and (args.dry_run or args.sweep):
      other = '--dry_run' if args.dry_run else '--sweep'
      raise ConfigError(f'--replay runs one step of one run: leave out {other}')
  with problems.collect():
    if args.help is None:
      processes.check(args)
  problems.add(found)
  if problems.sentences:
    problems.add(_config_problems(args, overrides))
  problems.raise_if_any()
  return args, overrides


def _config_problems(args: argparse.Namespace, overrides: dict[str, str]) -> list[str]:
  """What is wrong with the run itself, to be reported with wrong flags."""
  if args.help is not None:
    return []
  from vit_jax import config
  from vit_jax.training.preparation import outer_problems

  problems = Problems()
  with problems.collect():
    if not args.config:
      problems.add(config.override_problems(overrides))
    elif args.sweep:
      members = config.load_sweep(args.config, overrides, args.swept)
      if args.sweep not in ('all', 'list'):
        config.pick(list(members), args.sweep)
    else:
      options, found = config.load_all(args.config, overrides)
      problems.add(found)
      problems.add(outer_problems(options, args.workdir))
  return problems.sentences


class _Help(argparse.Action):
  """Keeps the topic ('' for none), and lets all other arguments be left out."""

  def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
    setattr(namespace, self.dest, values or '')
    parser.needs_all = False


class _Parser(Parser):
  def unknown(self, word: str) -> str:
    from vit_jax import config  # imports JAX

    name, equals, value = word.lstrip('-').removeprefix('config.').partition('=')
    same = [known for known, _ in config.leaves() if name in (known, known.split('.')[-1])]
    if equals and same:
      meant = machine.shell_line([f'--config.{same[0]}={value}'])
      return f'unknown argument {word!r}: did you mean {meant}?'
    near = super().unknown(word)
    return near if 'did you mean' in near else f'{near}; options are --config.NAME=VALUE'


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, overrides = _parse(argv)
  if args.config and config_files.is_foreign(args.config):
    path = ':'.join(filter(None, config_files.find(args.config)))
    show(f'note: running {path}, which is Python code, as the config file', error=True)
  if args.help is not None:
    show(_help(args, overrides))
    return 0
  if args.sweep != 'all':  # of a sweep each member is a command of its own
    status = processes.start('main', args, argv)
    if status is not None:
      return status
  try:
    return _sweep(args, overrides) if args.sweep else _train(args, overrides)
  except InterruptedRunError as e:
    raise InterruptedRunError(f'{e}: {typed("main", argv)}', e.number) from None


def _output(args: argparse.Namespace) -> str:
  return 'json' if args.json else 'quiet' if args.quiet else 'text'


def _train(args: argparse.Namespace, overrides: dict[str, str]) -> int:
  from vit_jax import config  # --help must not wait for JAX
  from vit_jax.train import train

  problems = Problems()
  options, wrong = config.load_all(args.config, overrides)
  problems.add(wrong)
  if wrong:  # those of workdir, dataset and weights are reported with them
    from vit_jax.training.preparation import outer_problems

    problems.add(outer_problems(options, args.workdir))
  problems.raise_if_any()
  if args.dry_run:
    from vit_jax.training.dry_run import dry_run

    dry_run(options, args.workdir, _output(args))
  elif args.replay:
    from vit_jax.training.replay import replay

    found = replay(options, args.workdir, _output(args))
    show(json.dumps(found.facts()) if args.json else '\n'.join(found.lines()))
  else:
    train(options, args.workdir, _output(args), args.max_hours)
  return 0


def _help(args: argparse.Namespace, overrides: dict[str, str]) -> str:
  """The page that was asked for."""
  if not args.help and not args.config:
    parser = _parser()
    parser.epilog = pages.overview()
    processes.hide_flags(parser)
    return parser.format_help().rstrip('\n')
  if not args.config:
    return pages.page(args.help, {}, _TOPICS)
  from vit_jax import config

  options = config.load(args.config, overrides)
  if not args.help:
    return pages.of_config(args.config, options)
  return pages.page(args.help, pages.values_of(options), _TOPICS)


def _sweep(args: argparse.Namespace, overrides: dict[str, str]) -> int:
  from vit_jax import config

  members = config.load_sweep(args.config, overrides, args.swept)
  if args.sweep == 'list':
    for k, member in enumerate(members):
      show(f'{k:4}  {one_line(member)}')
    return 0
  from vit_jax import remote
  from vit_jax.training import sweep
  from vit_jax.training.display import console_for
  from vit_jax.training.dry_run import dry_run

  name = None if args.sweep == 'all' else config.pick(list(members), args.sweep)
  if args.dry_run:
    first = name or next(iter(members))
    dry_run(members[first][1], args.workdir, _output(args), runs=1 if name else len(members))
  elif name:
    sweep.run_one(members, name, args.workdir, _output(args), args.max_hours)
  else:
    words = [f'--config.{name}={value}' for name, value in overrides.items()]
    words += [f'--sweep={word}' for word in args.swept]
    words += [f'--{flag}' for flag in ('quiet', 'json') if getattr(args, flag)]
    words += processes.member_flags(args)
    command = [sys.executable, '-m', 'vit_jax.main', f'--config={args.config}']
    with console_for(_output(args)), remote.workdir(args.workdir) as workdir:
      words = [*command, f'--workdir={workdir}', *words]
      sweep.run_all(members, str(workdir), words, args.max_hours)
  return 0


if __name__ == '__main__':
  run_cli(main)
