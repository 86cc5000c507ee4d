"""Classifies images: `python -m vit_jax.predict MODEL IMAGE...`."""

import json
from typing import TYPE_CHECKING

from vit_jax.command_line import run_cli
from vit_jax.console import show, show_problems
from vit_jax.errors import UserError, counted, one_line
from vit_jax.inference.answers import to_json
from vit_jax.inference.arguments import (
  batch_option,
  image_parser,
  images_of,
  load_model,
  weights_options,
)

if TYPE_CHECKING:
  from vit_jax.inference.loaded import Prediction


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status: 1 where an image could not be read."""
  parser = image_parser(
    'predict',
    'Classifies images.',
    'runs/mine photo.jpg holiday/',
    "vit_s16.augreg_i21k_i1k_224 'photos/*.jpg' --top_k=3 --json",
  )
  batch_option(parser)
  parser.option('--top_k', int, 'classes shown for each image', 5, low=1, high=1 << 20)
  parser.add_argument('--json', action='store_true', help='one JSON object a line')
  args, found = parser.parse_with(argv, paths=images_of, opening=weights_options)
  paths = found['paths']
  loaded = load_model(args, options=found['opening'])
  failed = 0
  step = 8 * args.batch_size  # predictions appear while later images are still computed
  for start in range(0, len(paths), step):
    chunk = paths[start : start + step]
    for path, answer in zip(chunk, loaded.predict(chunk, args.top_k, on_error='return')):
      if isinstance(answer, UserError):
        failed += 1
        show_problems(answer)
        continue
      show(json.dumps(to_json(path, answer)) if args.json else _table(path, answer))
  if failed:
    show(f'{failed} of {counted(len(paths), "image")} could not be read', error=True)
  return int(failed > 0)


def _table(path: str, found: 'list[Prediction]') -> str:
  names = [one_line(p.name) for p in found]
  width = max(map(len, names))
  rows = [f'  {p.probability:7.2%}  {n:<{width}}  ({p.index})' for p, n in zip(found, names)]
  if found[0].box is not None:
    x, y, w, h = found[0].box
    rows.append(f'  box {w:.1%} x {h:.1%} of the image, centre {x:.1%} across, {y:.1%} down')
  return '\n'.join([one_line(path), *rows])


if __name__ == '__main__':
  run_cli(main)
