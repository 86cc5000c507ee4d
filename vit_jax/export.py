"""Writes a model for use without this package: `python -m vit_jax.export MODEL --out=DIR`."""

import argparse
import os

from vit_jax import machine
from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.errors import ConfigError
from vit_jax.exporting import script
from vit_jax.exporting.base import EXPORTS, INPUT_DTYPES, PLATFORMS, Settings, platform
from vit_jax.files import check_no_folder
from vit_jax.inference.arguments import (
  model_option,
  opening_options,
  weights_arguments,
  weights_options,
)

_DESCRIPTION = """\
Writes a folder that runs a model without vit_jax: the model with its weights, class names, a record
of input and preprocessing, a script predict.py that classifies images, and a README. What was
written is read again and compared with the model; a folder that differs is not left.
"""


def _parser() -> Parser:
  parser = Parser(
    'export',
    description=_DESCRIPTION,
    epilog='example: python -m vit_jax.export runs/dogs --out=dogs_export',
  )
  add = parser.option
  model_option(parser)
  out = 'folder to write; it must not be there yet'
  add('--out', str, out, ..., metavar='DIR', path=True, parse=check_no_folder)
  add('--format', str, 'of the model', 'stablehlo', choices=lambda: EXPORTS)
  add(
    '--platforms',
    tuple[str, ...],
    'what the model can run on',
    Settings.platforms,
    metavar='A,B',
    choices=PLATFORMS,
  )
  add('--batch_size', int, 'images of every call; default: any number', low=1, high=1 << 20)
  dtype = 'type of the input images, whose values are 0 to 255 in any case'
  add('--input_dtype', str, dtype, Settings.input_dtype, choices=INPUT_DTYPES)
  opening_options(parser)
  weights_arguments(parser)
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, made = _parser().parse_with(argv, opening=weights_options)
  settings = _settings(args)
  from vit_jax.exporting.write import export
  from vit_jax.inference.loaded import load  # mistakes are reported before JAX loads

  here = platform()
  if here not in settings.platforms:
    raise ConfigError(
      f'--platforms={",".join(settings.platforms)} lacks {here}, on which JAX computes here and '
      'where the export is checked: add it'
    )
  opening = {'pretrained_dir': args.pretrained_dir, **made['opening']}
  loaded = load(args.model, model=args.architecture, **opening)
  written = export(loaded, args.out, args.format, settings)
  show(f'wrote {args.out}: {len(written.files)} files, {written.size / 1e6:.1f} MB')
  show(
    f'compared with the model on random images: logits differ by {written.difference:.2g} at most '
    f'(the largest is {written.largest:.3g})'
  )
  line = machine.shell_line(['python', os.path.join(args.out, script.FILE), 'IMAGE'])
  show(f'use: {line}')
  show(f'what it needs, and how it is called from Python: {os.path.join(args.out, "README.md")}')
  return 0


def _settings(args: argparse.Namespace) -> Settings:
  return Settings(tuple(dict.fromkeys(args.platforms)), args.batch_size, args.input_dtype)


if __name__ == '__main__':
  run_cli(main)
