"""Says what is in pictures: `python -m vit_jax.predict MODEL IMAGE...`."""

import argparse
import glob
import json
import pathlib
import sys
from typing import Any

from vit_jax.errors import UserError, run_cli

ENDINGS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')


def parser(prog: str, description: str) -> argparse.ArgumentParser:
  """The arguments that this command and `vit_jax.features` share."""
  made = argparse.ArgumentParser(prog=f'python -m vit_jax.{prog}', description=description)
  add = made.add_argument
  add('model', help="a run's workdir, a weights file or a zoo name")
  add('images', nargs='+', metavar='IMAGE', help='files, folders (searched deeply) or globs')
  add('--batch_size', type=int, default=32, help='most pictures computed at once')
  add('--pretrained_dir', default='', help='folder searched for named weights before a download')
  add('--architecture', default='', help='model name, for weights whose tensors do not tell')
  return made


def find_images(patterns: list[str]) -> list[str]:
  """Paths of the pictures that files, folders and globs stand for, in order, each once.

  Raises:
    UserError: a folder or glob without pictures. A missing file is kept: it is reported as a
      picture that cannot be read.
  """
  found: list[str] = []
  empty = []
  for pattern in patterns:
    path = pathlib.Path(pattern)
    if path.is_dir():
      matches = sorted(
        str(p) for p in path.rglob('*') if p.suffix.lower() in ENDINGS and p.is_file()
      )
    elif path.exists() or not glob.has_magic(pattern):
      matches = [pattern]
    else:
      matches = sorted(p for p in glob.glob(pattern, recursive=True) if pathlib.Path(p).is_file())
    if not matches:
      empty.append(f'no pictures in {pattern} (endings {", ".join(ENDINGS)})')
    found += matches
  if empty:
    raise UserError(empty)
  return list(dict.fromkeys(found))


def load_model(args: argparse.Namespace) -> Any:
  """The `Loaded` that arguments of `parser` mean."""
  from vit_jax.loaded import load  # mistakes are told before JAX loads

  return load(
    args.model,
    model=args.architecture,
    pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
  )


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status: 1 where a picture could not be read."""
  args_parser = parser('predict', 'Says what is in pictures.')
  args_parser.add_argument('--top_k', type=int, default=5, help='answers for each picture')
  args_parser.add_argument('--json', action='store_true', help='one JSON object a line')
  args = args_parser.parse_args(argv)
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
