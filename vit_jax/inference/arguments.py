"""Command-line arguments that the commands on a model and images share."""

import argparse
from typing import Any


def image_parser(command: str, description: str) -> argparse.ArgumentParser:
  """A parser with MODEL, IMAGE... and how the model is opened."""
  parser = argparse.ArgumentParser(prog=f'python -m vit_jax.{command}', description=description)
  add = parser.add_argument
  add('model', help="a run's workdir, a weights file or a pretrained model's name")
  add('images', nargs='+', metavar='IMAGE', help='files, folders (searched recursively) or globs')
  add('--batch_size', type=int, default=32, help='most images computed at once')
  add('--pretrained_dir', default='', help='folder searched for named weights before a download')
  add('--architecture', default='', help='model name, for weights whose tensors do not tell')
  return parser


def load_model(args: argparse.Namespace) -> Any:
  """The `Loaded` that arguments of `image_parser` mean."""
  from vit_jax.inference.loaded import load  # mistakes are reported before JAX loads

  return load(
    args.model,
    model=args.architecture,
    pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
  )
