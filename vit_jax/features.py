"""Writes the features of images: `python -m vit_jax.features MODEL IMAGE... --out=FILE.npz`."""

import pathlib
import sys

from vit_jax.command_line import run_cli
from vit_jax.data.image_files import find_images
from vit_jax.errors import ConfigError, ImageError, UserError
from vit_jax.inference.arguments import image_parser, load_model


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status: 1 where an image could not be read."""
  parser = image_parser('features', 'Writes the features of images as arrays.')
  parser.add_argument('--out', required=True, help="a .npz: 'paths' [n] and 'features' [n, ...]")
  parser.add_argument(
    '--what', default='pooled', help="'pooled', 'tokens', 'grid', or a block such as 'block_05'"
  )
  args = parser.parse_args(argv)
  out = pathlib.Path(args.out)
  if out.suffix != '.npz':
    raise ConfigError(f'--out must end in .npz, got {args.out}')
  if not out.parent.is_dir():
    raise ConfigError(f'--out: there is no folder {out.parent}')
  paths = find_images(args.images)
  import numpy as np

  from vit_jax.weights.containers import npz

  loaded = load_model(args)
  problems: dict[int, UserError] = {}
  features = loaded.features(paths, args.what, problems)
  for problem in problems.values():
    print(f'error: {" | ".join(problem.problems)}', file=sys.stderr)
  good = [path for i, path in enumerate(paths) if i not in problems]
  if not good:
    raise ImageError(f'none of {len(paths)} images could be read')
  npz.write(out, {'features': features, 'paths': np.array(good)})
  print(f'wrote {args.what} features {features.shape} of {len(good)} images to {out}')
  return int(bool(problems))


if __name__ == '__main__':
  run_cli(main)
