"""Writes the features of images: `python -m vit_jax.features MODEL IMAGE... --out=FILE.npz`."""

import functools
import pathlib

from vit_jax import processes
from vit_jax.command_line import run_cli
from vit_jax.console import show, show_problems
from vit_jax.errors import ImageError, UserError, counted
from vit_jax.files import check_new_file
from vit_jax.inference.arguments import (
  batch_option,
  image_parser,
  images_of,
  load_model,
  weights_options,
)


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status: 1 where an image could not be read."""
  parser = image_parser(
    'features',
    'Writes the features of images as arrays.',
    'runs/mine holiday/ --out=features.npz',
    'vit_s16.augreg_i21k photo.jpg --what=tokens --out=tokens.npz',
  )
  batch_option(parser)
  parser.option(
    '--out',
    str,
    "a .npz: 'paths' [n] and 'features' [n, ...]",
    ...,
    path=True,
    parse=functools.partial(check_new_file, ending='.npz'),
  )
  parser.option(
    '--what', str, "'pooled', 'tokens', 'grid', or a block such as 'block_05'", 'pooled'
  )
  processes.flags(parser)
  args, found = parser.parse_with(
    argv, paths=images_of, opening=weights_options, place=processes.check
  )
  status = processes.start('features', args, argv)
  if status is not None:
    return status
  out = pathlib.Path(args.out)
  paths = found['paths']
  import numpy as np

  from vit_jax.inference import shared
  from vit_jax.weights.containers import npz

  loaded = load_model(args, options=found['opening'])
  problems: dict[int, UserError] = {}
  features = shared.features(loaded, paths, args.what, problems)
  for problem in problems.values():
    show_problems(problem)
  good = [path for i, path in enumerate(paths) if i not in problems]
  if not good:
    raise ImageError(f'none of {counted(len(paths), "image")} could be read')
  if not processes.index():
    npz.write(out, {'features': features, 'paths': np.array(good)})
  show(f'wrote {args.what} features {features.shape} of {counted(len(good), "image")} to {out}')
  return int(bool(problems))


if __name__ == '__main__':
  run_cli(main)
