"""Compares runs on the same test images: `python -m vit_jax.compare RUN RUN... --out=DIR`."""

import argparse
import os

from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import Console, show
from vit_jax.errors import ConfigError, one_line
from vit_jax.files import check_new_folder

_DESCRIPTION = """\
Compares runs of any models on the same test images: accuracies with confidence intervals, whether
their differences are significant, sizes, times, memory and learning curves. Writes compare.html,
compare.csv, compare.json and figures.

A RUN is a run's folder, or a folder that `python -m vit_jax.evaluate MODEL --report=DIR` wrote. A
run without a report is evaluated first, on its test split.
"""


def _parser() -> Parser:
  parser = Parser(
    'compare',
    description=_DESCRIPTION,
    epilog='example: python -m vit_jax.compare runs/vit runs/resnet --out=runs/vit_vs_resnet',
  )
  what = "a run's folder or a report's"
  parser.option('runs', tuple[str, ...], what, metavar='RUN', path=True, remote=True)
  parser.option(
    '--out',
    str,
    'folder for the page, tables and figures',
    ...,
    metavar='DIR',
    path=True,
    parse=check_new_folder,
  )
  return parser


def _check_runs(args: argparse.Namespace) -> None:
  if args.runs and len(args.runs) < 2:
    raise ConfigError(f'a comparison needs two runs or more, got {args.runs[0]} alone')


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, _ = _parser().parse_with(argv, runs=_check_runs)
  from vit_jax.comparison import gather, significance, verdict, write  # --help must not wait for it

  with Console():
    runs = gather.gather(args.runs)
  page = os.path.join(args.out, 'compare.html')
  replaced = ', in place of an older one' if os.path.exists(page) else ''
  write.write_comparison(args.out, runs)
  show(write.text_table(runs))
  show(one_line(verdict.of_runs(runs, significance.pairs(runs)).replace('\u00a0', ' ')))
  show(f'page: {page}{replaced}')
  return 0


if __name__ == '__main__':
  run_cli(main)
