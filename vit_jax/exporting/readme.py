"""The README.md of an exported model, whose predict.py needs this package no more."""

from collections.abc import Sequence

from vit_jax.errors import one_line
from vit_jax.exporting.base import ExportFormat

_PAGE = """\
# @NAME@

Classifies images: @COUNT@ classes. Written by `vit_jax export`, and runs without it:
`pip install @PACKAGES@`.

| file | what |
|---|---|
@FILES@
| `classes.json` | names of the classes, in order |
| `predict.py` | a script that classifies images |
| `export.json` | input, outputs, preprocessing, versions, SHA-256 of the files |

Classify images, from any folder (`--help` lists the options):

```
python predict.py photo.jpg
```

From Python, with this folder in `sys.path`:

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
  record: dict,
) -> str:
  """The page.

  Args:
    name: of the model.
    format: that it is in.
    files: of the format.
    record: of export.json.
  """
  boxes = 'box' in record['outputs']
  packages, _, _ = format.script()
  lines = ['import numpy as np', 'from predict import load, read', '', 'run, classes = load()']
  lines += ["pixels, shown = read('photo.jpg')" if boxes else "pixels = read('photo.jpg')"]
  lines += ['found = run(np.stack([pixels]))', "print(classes[found['logits'][0].argmax()])"]
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
