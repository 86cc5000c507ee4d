"""A page of augmented images, each beside its original."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from vit_jax import data
from vit_jax.config import Config
from vit_jax.data import boxes
from vit_jax.data.dataset import Dataset
from vit_jax.errors import counted, dimensions
from vit_jax.files import writing
from vit_jax.report import page, thumbnails
from vit_jax.training.experiment import Experiment

IMAGES = 10


def write_page(
  path: pathlib.Path, config: Config, experiment: Experiment, batches: Sequence[Mapping[str, Any]]
) -> pathlib.Path:
  """Writes the first ten images that training sees.

  Args:
    path: of the page.
    config, experiment: of the run.
    batches: of training, with 'image' uint8 [b, h, w, c] and 'index' [b], ten images at least.

  Raises:
    StorageError: it cannot be written.
  """
  rows = [(batch, row) for batch in batches for row in range(len(batch['label']))][:IMAGES]
  lead = [
    page.paragraph(
      f'The first {counted(len(rows), "image")} of training, each as stored and then after the '
      f'transform {experiment.train_transform}, at config.seed={config.seed}.',
      'lead',
    )
  ]
  if config.mixing:
    mixed = 'On the device, after this, Mixup and CutMix mix images as config.mixing says.'
    lead.append(page.paragraph(mixed, 'note'))
  pairs = page.figures(*(_pair(experiment, batch, row) for batch, row in rows))
  with writing(path):
    page.write(
      path,
      f'Augmentation of {_called(experiment.dataset)}',
      lead,
      [('Images', [pairs])],
      'Made by a dry run, which trains nothing.',
    )
  return path


def _called(dataset: Dataset) -> str:
  """A dataset's name; of a folder the end of its whole path, since 'images' alone says little."""
  if dataset.kind in ('tfds', 'digits', 'shapes'):
    return dataset.name
  return '/'.join(pathlib.Path(dataset.name).expanduser().absolute().parts[-2:])


def _pair(experiment: Experiment, batch: Mapping[str, Any], row: int) -> Markup:
  """An image as it is stored, and as training sees it."""
  index = int(batch['index'][row])
  decode = data.parse_transform('decode', fixed_size=False)
  seen = {name: values[row] for name, values in batch.items()}
  id_ = experiment.train.id(index)
  return page.thumbnails(
    [
      _thumbnail(decode(experiment.train[index]), _label(experiment, seen), id_),
      _thumbnail(seen, 'augmented', id_),
    ]
  )


def _thumbnail(example: Mapping[str, Any], title: str, id_: str) -> thumbnails.Thumbnail:
  image = np.asarray(example['image'])
  corners = boxes.to_xyxy(example['box'], image.shape[:2]) if example.get('has_box') else None
  size = dimensions(image.shape[:2]).replace('(w x h)', '(w\u00a0x\u00a0h)')
  return thumbnails.Thumbnail(thumbnails.draw(image, [corners]), [title, size], None, id_)


def _label(experiment: Experiment, example: Mapping[str, Any]) -> str:
  """The classes of an example, by name."""
  classes = experiment.dataset.classes
  if 'labels' in example:
    return ', '.join(classes[k] for k in np.flatnonzero(example['labels'])) or 'no class'
  return classes[int(example['label'])]
