"""Says what is in pictures: `python -m vit_jax.predict MODEL IMAGE...`."""

import json
import sys

from vit_jax.data.image_files import find_images
from vit_jax.errors import UserError, run_cli
from vit_jax.inference.arguments import image_parser, load_model


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status: 1 where a picture could not be read."""
  parser = image_parser('predict', 'Classifies images.')
  parser.add_argument('--top_k', type=int, default=5, help='answers for each picture')
  parser.add_argument('--json', action='store_true', help='one JSON object a line')
  args = parser.parse_args(argv)
  if args.top_k < 1:
    raise UserError(f'--top_k must be positive, got {args.top_k}')
  if args.batch_size < 1:
    raise UserError(f'--batch_size must be positive, got {args.batch_size}')
  paths = find_images(args.images)
  loaded = load_model(args)
  failed = 0
  step = 8 * args.batch_size  # answers appear while later pictures are still computed
  for start in range(0, len(paths), step):
    chunk = paths[start : start + step]
    for path, answers in zip(chunk, loaded.predict(chunk, args.top_k, on_error='return')):
      if isinstance(answers, UserError):
        failed += 1
        print(f'error: {" | ".join(answers.problems)}', file=sys.stderr)
        continue
      print(_json_line(path, answers) if args.json else _table(path, answers))
    sys.stdout.flush()
  if failed:
    print(f'{failed} of {len(paths)} pictures could not be read', file=sys.stderr)
  return int(failed > 0)


def _json_line(path: str, answers: list) -> str:
  predictions = [
    {'index': a.index, 'class': a.name, 'probability': round(a.probability, 6)} for a in answers
  ]
  line = {'image': path, 'predictions': predictions}
  if answers[0].box is not None:
    line['box'] = [round(x, 6) for x in answers[0].box]
  return json.dumps(line)


def _table(path: str, answers: list) -> str:
  width = max(len(a.name) for a in answers)
  rows = [f'  {a.probability:7.2%}  {a.name:<{width}}  ({a.index})' for a in answers]
  if answers[0].box is not None:
    x, y, w, h = answers[0].box
    rows.append(f'  box {w:.1%} x {h:.1%} of the picture around {x:.1%} across, {y:.1%} down')
  return '\n'.join([path, *rows])


if __name__ == '__main__':
  run_cli(main)
