"""Command-line arguments that the commands on a model and images share."""

import argparse
from typing import Any

from vit_jax.errors import ConfigError


def image_parser(command: str, description: str) -> argparse.ArgumentParser:
  """A parser with MODEL, IMAGE... and how the model is opened."""
  parser = argparse.ArgumentParser(prog=f'python -m vit_jax.{command}', description=description)
  add = parser.add_argument
  add('model', help="a run's workdir, a weights file or a pretrained model's name")
  add('images', nargs='+', metavar='IMAGE', help='files, folders (searched recursively) or globs')
  add('--batch_size', type=int, default=32, help='most images computed at once')
  add('--pretrained_dir', default='', help='folder searched for named weights before a download')
  add('--architecture', default='', help='model name, for weights whose tensors do not tell')
  add_weights_arguments(parser)
  return parser


def add_weights_arguments(parser: argparse.ArgumentParser, classes: bool = True) -> None:
  """Adds what a foreign weights file may leave open; read by `weights_options`.

  Args:
    parser: of a command.
    classes: whether it takes class names.
  """
  add = parser.add_argument
  if classes:
    add(
      '--classes',
      default='',
      metavar='FILE',
      dest='class_names',
      help='class names of the model in order, for weights without: one a line, or JSON',
    )
  add(
    '--input_range',
    default='',
    metavar='LOW,HIGH',
    help='what pixels of 0 and 255 are to the model, for weights that do not state it: -1,1',
  )
  add('--submodel', default='', help="which of several models in a weights file: 'teacher'")


def weights_options(args: argparse.Namespace) -> dict[str, Any]:
  """Arguments of `vit_jax.load` from those of `add_weights_arguments`.

  Raises:
    ConfigError: one of them cannot be right.
  """
  options: dict[str, Any] = {'submodel': args.submodel}
  if getattr(args, 'class_names', ''):
    from vit_jax.data import class_names  # --help must not wait for NumPy

    options['classes'] = class_names.read_file(args.class_names)
  if args.input_range:
    try:
      low, high = map(float, args.input_range.split(','))
    except ValueError:
      raise ConfigError(
        f'--input_range takes two numbers such as -1,1, got {args.input_range!r}'
      ) from None
    options['input_range'] = (low, high)
  return options


def load_model(args: argparse.Namespace) -> Any:
  """The `Loaded` that arguments of `image_parser` mean."""
  options = weights_options(args)
  from vit_jax.inference.loaded import load  # mistakes are reported before JAX loads

  return load(
    args.model,
    model=args.architecture,
    pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
    **options,
  )
