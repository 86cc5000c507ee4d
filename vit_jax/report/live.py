"""Figures for TensorBoard during training."""

from typing import TYPE_CHECKING

import numpy as np

from vit_jax.report import canvas, examples, figures, matrices, metrics, thumbnails
from vit_jax.report.collect import LoadImage
from vit_jax.report.layout import ReportLayout
from vit_jax.report.predictions import Predictions

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def confusion(predictions: Predictions, load_image: LoadImage) -> 'Figure':
  """Counts of the confusion matrix; of very many classes an overview."""
  found = metrics.confusion(predictions)
  if len(predictions.classes) > matrices.NAMED:
    return matrices.overview(found.shares, "share of the true class's images")
  names = predictions.names
  return matrices.confusion(found.counts, names, names, found.shares)


def samples(predictions: Predictions, load_image: LoadImage) -> 'Figure':
  """The same images at every evaluation, with prediction and truth."""
  rows = examples.samples(predictions)
  return figures.sheet(thumbnails.predicted(predictions, rows, load_image))


def live_images(
  predictions: Predictions, layout: ReportLayout, load_image: LoadImage
) -> dict[str, np.ndarray]:
  """A layout's live figures by name, each uint8 [h, w, 3].

  Args:
    predictions: of the validation split.
    layout: of the task's report.
    load_image: position in the split -> uint8 [h, w, c].

  Raises:
    DependencyError: matplotlib is not installed; see `can_draw`.
  """
  return {
    name: canvas.pixels(draw(predictions, load_image)) for name, draw in layout.live_figures.items()
  }
