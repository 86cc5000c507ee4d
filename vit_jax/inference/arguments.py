"""Command-line arguments that the commands on a model and images share."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.arguments import Parser
from vit_jax.errors import ConfigError, shown
from vit_jax.options import from_text

ON_ERROR = ('raise', 'skip')  # policies for images that cannot be decoded


def image_parser(command: str, description: str, *examples: str) -> Parser:
  """A parser with MODEL, IMAGE... and how the model is opened.

  Args:
    command: its name, as in `python -m vit_jax.NAME`.
    description: what it does.
    *examples: arguments, as one types them.
  """
  lines = [f'  python -m vit_jax.{command} {words}' for words in examples]
  parser = Parser(command, description=description, epilog='\n'.join(['examples:', *lines]))
  model_option(parser)
  parser.option(
    'images',
    tuple[str, ...],
    'files, folders (searched recursively) or globs',
    metavar='IMAGE',
    path=True,
  )
  opening_options(parser)
  weights_arguments(parser)
  return parser


def model_option(parser: Parser) -> None:
  """MODEL."""
  what = "a run's workdir, a weights file or a pretrained model's name"
  parser.option('model', str, what, path=True, remote=True)


def batch_option(parser: Parser) -> None:
  """--batch_size."""
  what = 'most images computed at once'
  parser.option('--batch_size', int, what, 32, low=1, high=1 << 20)


def pretrained_dir_option(parser: Parser) -> None:
  """Where weights are looked for first."""
  searched = 'folder searched for weights, by name or file name, before a download'
  parser.option('--pretrained_dir', str, searched, '', path=True)


def opening_options(parser: Parser) -> None:
  """How a model's weights are found and recognised."""
  pretrained_dir_option(parser)
  parser.option(
    '--architecture',
    str,
    'model name, for weights whose tensors do not tell',
    '',
    parse=check_model_name,
  )


def images_of(args: argparse.Namespace) -> list[str]:
  """Paths of the IMAGEs of an `image_parser`.

  Raises:
    DatasetError: a folder or glob without images.
  """
  from vit_jax.data.image_files import find_images  # --help must not wait for NumPy

  return find_images(list(args.images or ()))


def weights_arguments(parser: Parser, classes: bool = True) -> None:
  """What a foreign weights file may leave open; read by `weights_options`.

  Args:
    parser: of a command.
    classes: whether it takes class names.
  """
  add = parser.option
  if classes:
    names = 'class names of the model in order, for weights without: one a line, or JSON'
    add('--classes', str, names, '', metavar='FILE', dest='class_names', path=True)
  add(
    '--input_range',
    tuple[float, ...],
    'what pixels of 0 and 255 are to the model, for weights that do not state it: -1,1',
    (),
    metavar='LOW,HIGH',
    lengths=(2,),
  )
  add('--submodel', str, "which of several models in a weights file: 'teacher'", '')
  parser.add_argument(
    '--allow_invalid',
    action='store_true',
    help='take weights that are NaN or infinite, and negative variances; else they are refused',
  )


def weights_options(args: argparse.Namespace) -> dict[str, Any]:
  """Arguments of `vit_jax.load` from those of `weights_arguments`.

  Raises:
    ConfigError: one of them cannot be right.
  """
  options: dict[str, Any] = {
    'submodel': args.submodel,
    'allow_invalid': args.allow_invalid,
    'model_option': '--architecture',
  }
  if getattr(args, 'class_names', ''):
    from vit_jax.data import class_names  # --help must not wait for NumPy

    options['classes'] = class_names.read_file(args.class_names)
  if args.input_range:
    options['input_range'] = args.input_range
  return options


def fields_of(pairs: Sequence[str]) -> dict[str, Any]:
  """'FIELD=VALUE' of a model, as --set takes them.

  Raises:
    ConfigError: of another form, given twice, or no field.
  """
  fields: dict[str, Any] = {}
  problems = []
  for pair in pairs:
    name, equals, text = pair.partition('=')
    if not equals:
      problems.append(f'--set needs FIELD=VALUE, got {shown(pair)}')
    elif not name.isidentifier() or name in ('name', 'num_classes', 'head', 'weights'):
      problems.append(f'--set={shown(pair)}: {name!r} is not a field of a model')
    elif name in fields:
      problems.append(f'--set: {name!r} is given twice')
    else:
      fields[name] = from_text(text, Any)
  if problems:
    raise ConfigError(problems)
  return fields


def check_model_name(name: str) -> None:
  """Raises a `ConfigError` unless a model has this name, or none is named."""
  from vit_jax import models  # --help must not wait for it

  if name:
    models.fields(name)


def load_model(
  args: argparse.Namespace, model: str = '', options: Mapping[str, Any] | None = None
) -> Any:
  """The `Loaded` that arguments of a command with a batch size mean.

  Args:
    args: of a parser with `batch_option`, `opening_options` and `weights_arguments`.
    model: which one; '' for `args.model`.
    options: of `weights_options`, where it was asked before.
  """
  if options is None:
    options = weights_options(args)
  from vit_jax.inference.loaded import load  # mistakes are reported before JAX loads

  return load(
    model or args.model,
    model=args.architecture,
    pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
    **options,
  )
