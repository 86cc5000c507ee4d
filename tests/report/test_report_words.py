"""Sentences of reports: they follow from the numbers, and say no more than those bear."""

import types

import numpy as np
import pytest

from tests.report import fakes
from vit_jax.report import Facts, boxes, history, label_sets, metrics, sections, single_label

NBSP = '\u00a0'


def _context(p, compute=metrics.compute, rows=()):
  """Of sections whose figures are not drawn."""
  cache = {}

  def once(f):
    return cache.setdefault(f, f(p))

  result = {**compute(p), 'training': history.training(rows, 8) if rows else None}
  return types.SimpleNamespace(
    predictions=p,
    result=result,
    once=once,
    figure=lambda name, drawing, title, caption, alt='': caption,
    load_image=None,
    rows=list(rows),
    titles={},
  )


def _words(section, p, **rest):
  found = section(_context(p, **rest))
  parts = found[1] if isinstance(found, tuple) else found
  return ' '.join(map(str, parts)).replace(NBSP, ' ').replace('&#39;', "'")


def _confident(confidence, correct):
  """Two classes; each prediction is class 0 with a confidence."""
  p = np.asarray(confidence, np.float64)
  logits = np.stack([np.log(p), np.log(1 - p)], axis=1)
  return fakes.predictions(np.where(correct, 0, 1), logits, ('ant', 'bee'))


def test_sixty_of_sixty_right_is_not_called_underconfident():
  """95 % confidence: that many right are not unusual; the interval of 60 of 60 begins at 94 %."""
  text = _words(single_label.calibration_section, _confident([0.95] * 60, [True] * 60))
  assert 'the model is underconfident' not in text and 'agree' not in text
  assert 'within' in text and '94.0 to 100.0 %' in text


def test_sixty_of_sixty_right_with_much_doubt_is_underconfident():
  text = _words(single_label.calibration_section, _confident([0.6] * 60, [True] * 60))
  assert 'underconfident by 40.0 points' in text


def test_bins_that_miss_both_ways_do_not_agree():
  """Half at 65 % are all right, half at 95 % are right in 65 of 100: the means agree, ECE 32 %."""
  p = _confident([0.65] * 100 + [0.95] * 100, [True] * 100 + [True] * 60 + [False] * 40)
  assert metrics.compute(p)['ece'] == pytest.approx(0.35, abs=1e-6)
  text = _words(single_label.calibration_section, p)
  assert 'agree' not in text and 'Expected calibration error, over bins, 35.0 %' in text
  assert 'more than chance' in text


def test_a_calibration_error_of_few_images_is_compared_with_chance():
  """5 images at 80 %, 3 right: an ECE of 20 % that a calibrated model often has."""
  text = _words(single_label.calibration_section, _confident([0.8] * 5, [1, 1, 1, 0, 0]))
  assert 'no more than chance' in text and 'overconfident' not in text.split('.')[0]


def test_bins_too_few_for_the_gap_of_the_means_are_said_to_be():
  """30 images at 62 %, 25 right: outside the accuracy's interval, within chance of the bins."""
  confidence = np.linspace(0.52, 0.72, 30)
  text = _words(single_label.calibration_section, _confident(confidence, [1, 1, 1, 1, 1, 0] * 5))
  assert 'underconfident by 21.3 points, more than chance explains' in text
  assert 'no more than chance' in text and 'its bins hold too few images' in text


def test_one_image_is_said_in_the_singular():
  text = _words(single_label.calibration_section, _confident([0.6], [True]))
  assert '1 image does not show' in text and 'on 1 image in 95' in text


def test_of_many_classes_of_an_image_the_most_probable_are_named():
  logits = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -9.0]])
  facts = Facts('s', activation='sigmoid')
  names, shown = list('abcdefg'), np.ones((1, 7), np.uint8)
  p = fakes.predictions([-1], logits, names, facts=facts, multi_hot=shown)
  context = _context(p, label_sets.compute)
  context.load_image = fakes.image
  _, parts = label_sets.images_section(context)
  text = ' '.join(map(str, parts)).replace(NBSP, ' ')
  assert 'pred f 99.8 %, e 99.3 %, d 98.2 %, c 95.3 %, b 88.1 % and 1 more<' in text
  assert 'true a, b, c, d, e and 2 more<' in text


def test_an_overconfident_model_is_called_so():
  text = _words(
    single_label.calibration_section, _confident([0.99] * 200, [True] * 100 + [False] * 100)
  )
  assert 'overconfident by 49.0 points' in text


@pytest.mark.parametrize(
  'hits, others, words',
  [
    (
      8,
      2,
      'within that interval: these images do not show that the model is better.',
    ),  # 8 of 10, and 6 of 10 are of one class
    (90, 10, 'below that interval.'),
    (10, 90, 'above that interval: the model is worse.'),
  ],
)
def test_the_baseline_is_placed_by_the_interval(hits, others, words):
  n = hits + others
  labels = np.array([0] * round(0.6 * n) + [1] * (n - round(0.6 * n)))
  wrong = np.arange(n) >= hits
  predicted = np.where(wrong, 1 - labels, labels)
  text = _words(single_label.lead, fakes.predictions(labels, np.eye(2)[predicted], ('a', 'b')))
  assert f'60.0 %, {words}' in text


def test_a_class_that_is_never_predicted_is_named_where_it_counts_as_zero():
  p = fakes.predictions([0, 0, 1, 2], np.eye(3)[[0, 0, 0, 2]])
  text = _words(single_label.classes_section, p)
  assert 'precision 0.556' in text  # (2/3 + 0 + 1) / 3
  assert '1 class that is never predicted counts with a precision of 0' in text
  everywhere = _words(single_label.classes_section, fakes.predictions([0, 1, 2], np.eye(3)))
  assert 'never predicted counts' not in everywhere


def test_macro_f1_says_of_how_many_classes():
  p = fakes.predictions([0, 0, 1], np.eye(3)[[0, 0, 1]])
  notes = {card.name: card.note for card in single_label.cards(_context(p))}
  assert notes['Macro F1'] == 'mean over the 2 classes that have images'


@pytest.mark.parametrize('right, words', [(1, 'no wrong'), (0, 'no correct')])
def test_a_figure_of_one_kind_of_predictions_says_so(right, words):
  text = _words(single_label.calibration_section, _confident([0.8] * 7, [bool(right)] * 7))
  assert words in text and 'further apart' not in text


def test_no_class_that_occurs_has_no_mean_average_precision():
  """It was 0.000 over the 0 classes that occur."""
  p = fakes.predictions(
    [-1] * 3,
    -np.ones((3, 3)),
    facts=Facts('s', activation='sigmoid'),
    multi_hot=np.zeros((3, 3), np.uint8),
  )
  assert label_sets.compute(p)['map'] is None
  text = _words(label_sets.lead, p, compute=label_sets.compute)
  assert '0.000' not in text and 'no image shows' in text.lower()
  cards = {c.name: c.value for c in label_sets.cards(_context(p, label_sets.compute))}
  assert cards['Mean average precision'] == '–'


@pytest.mark.parametrize('compute', [metrics.compute, label_sets.compute])
def test_the_rate_of_a_single_batch_says_that_it_has_the_compilation(compute):
  """7 images in 2 s: 3.5 /s on card and table alike, and both say so; with several batches not."""
  for img_sec, rate, said in ((None, '3.5', True), (11.0, '11', False)):
    p = fakes.random(
      7, 3, seconds=2.0, img_sec=img_sec, multi_hot=np.eye(3, dtype=np.uint8)[[0, 1, 2] * 2 + [0]]
    )
    context = _context(p, compute)
    (card,) = sections._throughput(context)
    assert card.value == f'{rate} /s' and ('compilation' in card.note) == said
    row = next(
      line for line in _words(sections.time_and_memory, p, compute=compute).split('<tr>')
      if 'evaluation images/s' in line
    )  # fmt: skip
    assert rate in row and ('compilation' in row) == said


def test_training_rates_have_a_true_median():
  """Of 2 and 4 images/s it is 3."""
  assert history.training(fakes.ROWS, 8).img_sec == 3.0


def test_validations_between_two_reports_have_their_time():
  """Training rows at steps 4 and 8 after 10 and 30 s: a validation at 6 came at 20 s."""
  rows = [
    {'step': 4, 'split': 'train', 'seconds': 10.0},
    {'step': 6, 'split': 'val', 'loss': 1.0},
    {'step': 8, 'split': 'train', 'seconds': 30.0},
    {'step': 8, 'split': 'val', 'loss': 0.5},
  ]
  assert [row['seconds'] for row in history.with_seconds(rows, None)] == [10.0, 20.0, 30.0, 30.0]


def test_calibration_bins_hold_their_upper_edge_and_both_ends():
  """Confidences 1/2 of two classes, and 1: as many bins as there are edges."""
  p = fakes.predictions([0, 0], [[0.0, 0.0], [200.0, 0.0]], ('a', 'b'))
  found = metrics.calibration(p, bins=2)
  assert found.counts.tolist() == [1, 1] and found.counts.sum() == 2
  assert found.confidence.tolist() == [0.5, 1.0]


@pytest.mark.parametrize('hits, n', [(0, 5), (5, 5), (1, 1), (0, 1)])
def test_intervals_at_none_and_all(hits, n):
  """Wilson: 0 of n ends at z^2 / (n + z^2), n of n begins at n / (n + z^2)."""
  z2 = 1.959964**2
  low, high = metrics.wilson(hits, n)
  wanted = (0.0, z2 / (n + z2)) if hits == 0 else (n / (n + z2), 1.0)
  assert (low, high) == pytest.approx(wanted, abs=1e-6)


def test_images_without_a_box_are_in_no_share_of_boxes():
  box = np.array([[0.5, 0.5, 0.2, 0.2]] * 3)
  true = box.copy()
  true[1:] = np.nan
  p = fakes.predictions([0, 1, 2], np.eye(3), boxes_cxcywh=box, true_boxes_cxcywh=true)
  text = _words(boxes.section, p, compute=lambda p: metrics.compute(p) | boxes.compute(p))
  assert 'of 1 box;' in text


def test_every_share_of_boxes_has_an_interval():
  box = np.array([[0.5, 0.5, 0.2, 0.2]] * 3)
  p = fakes.predictions([0, 1, 1], np.eye(3), boxes_cxcywh=box, true_boxes_cxcywh=box)
  result = boxes.compute(p)
  assert result['box50_right'] == 2 / 3
  assert result['box50_right_interval'] == list(metrics.wilson(2, 3))
  text = _words(boxes.section, p, compute=lambda p: metrics.compute(p) | boxes.compute(p))
  assert '20.8 to 93.9 %' in text and 'share of boxes' in text


def test_images_that_show_no_class_are_counted_beside_the_share_that_they_lower():
  """The most confident class of an image without any is never shown."""
  shown = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0]], np.uint8)
  p = fakes.predictions(
    [-1] * 3, np.eye(3)[[0, 0, 0]], facts=Facts('s', activation='sigmoid'), multi_hot=shown
  )
  context = _context(p, label_sets.compute)
  (card,) = (c for c in label_sets.cards(context) if 'Most confident' in c.name)
  assert card.note == 'of images, of which 2 show no class'
