"""The predict.py of an exported model: classifies images without this package."""

from collections.abc import Sequence

from vit_jax.exporting.base import ExportFormat
from vit_jax.exporting.recipe import Step

FILE = 'predict.py'
_BATCH = 32  # images computed at once where the export leaves their number open

_SCRIPT = '''\
"""Classifies images with the model of this folder: python predict.py IMAGE..."""

import argparse
import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageOps

folder = pathlib.Path(__file__).resolve().parent
BATCH = @BATCH@  # images computed at once


@READ@


def load():
  """The model, from pixels [n, @SHAPE@] to outputs by name, and the names of classes."""
@OPENING@

@RUN@

  return run, json.loads((folder / 'classes.json').read_text('utf-8'))


def main():
  about = @ABOUT@
  parser = argparse.ArgumentParser(description=about)
  parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
  parser.add_argument('--top_k', type=int, default=5, metavar='K', help='classes shown (5)')
  parser.add_argument('--json', action='store_true', help='print one JSON object a line')
  args = parser.parse_args()
  if args.top_k < 1:
    parser.error('--top_k must be at least 1')
  sys.stdout.reconfigure(errors='backslashreplace')
  sys.stderr.reconfigure(errors='backslashreplace')
  run, classes = None, []
  failed = 0
  for start in range(0, len(args.images), BATCH):
    paths, inputs = [], []
    for path in args.images[start : start + BATCH]:
      try:
        inputs.append(read(path))
        paths.append(path)
      except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        failed += 1
        print(f'error: {path}: {getattr(e, "strerror", None) or e}', file=sys.stderr)
    if not paths:
      continue
    if run is None:
      try:
        run, classes = load()
      except ImportError as e:
        sys.exit(f'error: {e}: pip install @PACKAGES@')
      except OSError as e:
        sys.exit(f'error: the model cannot be read: {e}')
@PIXELS@
    for i, (path, p) in enumerate(zip(paths, found['probabilities'])):
      best = [int(k) for k in np.argsort(-found['logits'][i], kind='stable')[: args.top_k]]
@ANSWER@
  return int(failed > 0)


if __name__ == '__main__':
  sys.exit(main())
'''


def text(name: str, format: ExportFormat, steps: Sequence[Step], record: dict) -> str:
  """The script.

  Args:
    name: of the model.
    format: that it is in.
    steps: from a file to pixels.
    record: of export.json.
  """
  boxes = 'box' in record['outputs']
  given = record['input']
  size = given['shape'][0]
  packages, imports, opening = format.script()
  about = f'Classifies images with {name}, which knows {record["num_classes"]} classes.'
  values = {
    'batch': str(_BATCH if isinstance(size, str) else size),
    'shape': ', '.join(map(str, given['shape'][1:])),
    'packages': ' '.join([*packages, 'numpy', 'pillow']),
    'about': repr(about.replace('%', '%%')),
    'opening': _indented(2, [*imports, '', *opening]),
    'run': _indented(2, _run(fixed=not isinstance(size, str))),
    'read': '\n'.join(_read(steps, given, boxes)),
    'pixels': _indented(4, _pixels(boxes)),
    'answer': _indented(6, _answer(boxes)),
  }
  script = _SCRIPT
  for key, value in values.items():
    script = script.replace(f'@{key.upper()}@', value)
  return script


def _indented(spaces: int, lines: Sequence[str]) -> str:
  return '\n'.join(f'{" " * spaces}{line}'.rstrip() for line in lines)


def _read(steps: Sequence[Step], given: dict, boxes: bool) -> list[str]:
  """The function `read`: pixels of a file, and the part of the image that they show."""
  lines = ['def read(path):']
  if boxes:
    lines += [
      '  """The pixels of an image as the model takes them, and which part of it they show.',
      '',
      '  The part is left, top, width and height, as shares of the image.',
      '  """',
    ]
  else:
    lines.append('  """The pixels of an image as the model takes them."""')
  lines.append('  image = Image.open(path)')
  if boxes:
    lines.append('  x, y, w, h = 0.0, 0.0, 1.0, 1.0')
  for step in steps:
    lines.append(f'  # {step.words}')
    lines += [f'  {line}' for line in step.lines]
    if step.cuts:
      if boxes:
        lines += [
          '  left, top, right, bottom = edges',
          '  x, y = x + w * left / image.width, y + h * top / image.height',
          '  w, h = w * (right - left) / image.width, h * (bottom - top) / image.height',
        ]
      lines.append('  image = image.crop(edges)')
  pixels = f'np.asarray(image, np.{given["dtype"]})'
  pixels += '[..., None]' if given['shape'][-1] == 1 else ''
  return [*lines, f'  return {pixels}, (x, y, w, h)' if boxes else f'  return {pixels}']


def _run(fixed: bool) -> list[str]:
  """The function `run`: any number of images, in calls of the fixed one where there is one."""
  if not fixed:
    return [
      'def run(pixels):',
      '  return {name: np.asarray(x) for name, x in predict(pixels).items()}',
    ]
  return [
    'def run(pixels):',
    '  count, missing = len(pixels), -len(pixels) % BATCH  # the last call is filled up with black',
    '  filled = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), pixels.dtype)])',
    '  parts = [predict(part) for part in np.split(filled, len(filled) // BATCH)]',
    '  return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}',
  ]


def _pixels(boxes: bool) -> list[str]:
  if boxes:
    return ['pixels, shown = zip(*inputs)', 'found = run(np.stack(pixels))']
  return ['found = run(np.stack(inputs))']


def _answer(boxes: bool) -> list[str]:
  """What is printed of image i: the table or the JSON of `vit_jax.predict`."""
  box = ", 'box': [round(x, 6) for x in box]" if boxes else ''
  lines = ['rows = [(k, classes[k], round(float(p[k]), 6)) for k in best]']
  if boxes:
    lines += [
      "cx, cy, bw, bh = map(float, found['box'][i])",
      'x, y, w, h = shown[i]',
      'box = x + w * cx, y + h * cy, w * bw, h * bh  # shares of the whole image',
    ]
  lines += [
    'if args.json:',
    "  rows = [dict(zip(('index', 'class', 'probability'), row)) for row in rows]",
    f"  print(json.dumps({{'image': path, 'predictions': rows{box}}}))",
    '  continue',
    'print(path)',
    'width = max(len(name) for _, name, _ in rows)',
    'for k, name, probability in rows:',
    "  print(f'  {probability:7.2%}  {name:{width}}  ({k})')",
  ]
  if boxes:
    lines += [
      "where = '  box {2:.1%} x {3:.1%} of the image, centre {0:.1%} across, {1:.1%} down'",
      'print(where.format(*box))',
    ]
  return lines
