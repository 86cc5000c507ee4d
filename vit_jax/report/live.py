"""Pictures for TensorBoard while a run goes on."""

import numpy as np

from vit_jax.report import canvas, examples, figures, matrices, metrics, page
from vit_jax.report.predictions import Predictions


def confusion_figure(predictions: Predictions):
  """Counts of the confusion matrix; of very many classes an overview."""
  counts = metrics.confusion_counts(predictions)
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  if len(predictions.classes) > matrices.NAMED:
    shares[counts.sum(axis=1) == 0] = np.nan
    return matrices.overview(shares, "share of the true class's pictures")
  return matrices.confusion(counts, predictions.names, predictions.names, shares)


def sample_figure(predictions: Predictions, load_picture: examples.LoadPicture, most: int = 16):
  """The same pictures at every evaluation, with truth and prediction."""
  rows = examples.samples(predictions, most)
  return shots_figure(examples.shots(predictions, rows, load_picture))


def shots_figure(items: list[page.Shot], columns: int = 4):
  """Pictures with what was said of them, as a figure."""
  return figures.sheet(
    [page.mark(item) for item in items],
    ['\n'.join(item.lines) for item in items],
    [item.correct for item in items],
    columns,
  )


def live_images(
  predictions: Predictions, load_picture: examples.LoadPicture
) -> dict[str, np.ndarray]:
  """What a periodic evaluation shows: {'confusion': uint8 [h, w, 3], 'samples': ...}.

  Args:
    predictions: of the validation split.
    load_picture: position in the split -> uint8 [h, w, c].

  Raises:
    UserError: matplotlib is not installed; see `can_draw`.
  """
  return {
    'confusion': canvas.pixels(confusion_figure(predictions)),
    'samples': canvas.pixels(sample_figure(predictions, load_picture)),
  }
