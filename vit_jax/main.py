"""Trains or fine-tunes a model: `python -m vit_jax.main --config=FILE --workdir=DIR`."""

import argparse

from vit_jax import config
from vit_jax.errors import UserError, run_cli

_DESCRIPTION = """\
Trains or fine-tunes a model as an experiment file says. The same command goes on where an
interrupted run stopped.

examples:
  python -m vit_jax.main --config=configs/vit_digits.py --workdir=runs/digits
  python -m vit_jax.main --config=configs/vit_b16_dogs.py --workdir=runs/dogs \\
      --config.dataset.name=path/to/pictures --config.init_from=weights.npz
  python -m vit_jax.main --config=configs/finetune.py:vit_b16,cifar10 --workdir=runs/cifar
"""


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[str, str]]:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.main',
    description=_DESCRIPTION,
    epilog='every option of a config, with its default:\n\n' + config.describe(),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, metavar='FILE[:ARG]', help='experiment file')
  parser.add_argument('--workdir', required=True, metavar='DIR', help="the run's folder")
  args, rest = parser.parse_known_args(argv)
  overrides, problems = {}, []
  while rest:
    word = rest.pop(0)
    name, equals, value = word.removeprefix('--config.').partition('=')
    if not word.startswith('--config.'):
      problems.append(f'unknown argument {word!r}: options are --config.NAME=VALUE')
    elif equals:
      overrides[name] = value
    elif rest and not rest[0].startswith('--'):
      overrides[name] = rest.pop(0)
    else:
      problems.append(f'{word} needs a value: {word}=VALUE')
  if problems:
    raise UserError(problems)
  return args, overrides


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, overrides = _parse(argv)
  options = config.load(args.config, overrides)
  from vit_jax.train import train  # a wrong option is told before JAX is loaded

  train(options, args.workdir)
  return 0


if __name__ == '__main__':
  run_cli(main)
