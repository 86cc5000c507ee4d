"""The README.md of an exported model: Python that needs this package no more."""

from collections.abc import Sequence

from vit_jax.errors import one_line
from vit_jax.exporting.base import ExportFormat
from vit_jax.exporting.recipe import Step

_PAGE = """\
# @NAME@

Classifies images: @COUNT@ classes. Written by `vit_jax export`, and runs without it:
`pip install @PACKAGES@`.

| file | what |
|---|---|
@FILES@
| `classes.json` | names of the classes, in order |
| `export.json` | input, outputs, preprocessing, versions, SHA-256 of the files |

Classify images:

```python
@CODE@
```

What the model gives for each image:

@OUTPUTS@

It takes pixels of 0 to 255 and brings them to its value range itself.
"""


def text(
  name: str,
  format: ExportFormat,
  files: Sequence[str],
  steps: Sequence[Step],
  record: dict,
) -> str:
  """The page.

  Args:
    name: of the model.
    format: that it is in.
    files: of the format.
    steps: from a file to pixels.
    record: of export.json.
  """
  boxes = 'box' in record['outputs']
  packages, imports, opening = format.readme()
  lines = [*_head(imports), '', *opening]
  lines += ["classes = json.loads((folder / 'classes.json').read_text('utf-8'))", '', '']
  lines += _read(steps, record['input'], boxes)
  lines += ['', '', *_use(record['input'], boxes)]
  values = {
    'name': one_line(name).replace('`', "'"),
    'count': str(record['num_classes']),
    'packages': ' '.join([*packages, 'numpy', 'pillow']),
    'files': '\n'.join(f'| `{file}` | the model with its weights |' for file in files),
    'code': '\n'.join(lines),
    'outputs': '\n'.join(f'- `{k}`: {v["meaning"]}' for k, v in record['outputs'].items()),
  }
  page = _PAGE
  for key, value in values.items():
    page = page.replace(f'@{key.upper()}@', value)
  return page


def _head(imports: Sequence[str]) -> list[str]:
  return [
    'import json',
    'import pathlib',
    '',
    *imports,
    'import numpy as np',
    'from PIL import Image, ImageOps',
    '',
    "folder = pathlib.Path('.')  # this folder",
    "images = ['photo.jpg']",
  ]


def _read(steps: Sequence[Step], given: dict, boxes: bool) -> list[str]:
  """The function `read`: pixels of a file, and the part of the image that they show."""
  lines = ['def read(path):', '  image = Image.open(path)']
  if boxes:
    lines.append('  x, y, w, h = 0.0, 0.0, 1.0, 1.0  # what is shown: left, top, width, height')
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


def _use(given: dict, boxes: bool) -> list[str]:
  size = given['shape'][0]
  fixed = not isinstance(size, str)
  lines = []
  if fixed:
    lines += [f'# Any number of images, {size} a call; the rest of the last call is black.']
  if boxes:
    lines += [
      'pixels, shown = zip(*map(read, images))',
      'pixels = np.stack(pixels)',
    ]
  else:
    lines += ['pixels = np.stack([read(path) for path in images])']
  if fixed:
    lines += [
      f'missing = -len(pixels) % {size}',
      'pixels = np.concatenate([pixels, np.zeros((missing, *pixels.shape[1:]), pixels.dtype)])',
      f'parts = [predict(part) for part in np.split(pixels, len(pixels) // {size})]',
      'found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}',
    ]
  else:
    lines += ['found = {name: np.asarray(x) for name, x in predict(pixels).items()}']
  lines += [
    "for i, (path, p) in enumerate(zip(images, found['probabilities'])):",
    '  print(path)',
    "  for k in np.argsort(-found['logits'][i], kind='stable')[:5]:",
    "    print(f'  {p[k]:7.2%}  {classes[k]}')",
  ]
  if boxes:
    lines += [
      "  cx, cy, bw, bh = found['box'][i]",
      '  x, y, w, h = shown[i]',
      "  print(f'  box {w * bw:.1%} x {h * bh:.1%}, centre {x + w * cx:.1%}, {y + h * cy:.1%}')",
    ]
  return lines
