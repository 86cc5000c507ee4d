"""The report as files: complete, self-contained, and drawn whatever the classes are."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.report import fakes
from vit_jax.errors import UserError
from vit_jax.report import (
  Facts,
  boxes,
  canvas,
  examples,
  history,
  live_images,
  load_predictions,
  matrices,
  metrics,
  write_report,
)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  out = tmp_path_factory.mktemp('report')
  labels = [0] * 5 + [1] * 7 + [2] * 3
  true_boxes = np.tile([0.5, 0.5, 0.4, 0.4], (15, 1))
  predicted = true_boxes + [[0.1 * (i % 3), 0, 0, 0] for i in range(15)]
  true_boxes[4] = np.nan
  classes = ['$ant$', 'bee & <b>', 'cät']
  rng = np.random.default_rng(3)
  facts = Facts(
    'run <1>',
    model='vit_fake',
    dataset='/long/path/to/pets',
    split='test',
    step=5,
    config={'batch_size': 8, 'total': '5 steps'},
    versions={'vit_jax': '0'},
    parameters=1234567,
    trained_parameters=11,
  )
  p = fakes.predictions(
    labels,
    rng.normal(size=(15, 3)),
    classes,
    facts=facts,
    boxes_cxcywh=predicted,
    true_boxes_cxcywh=true_boxes,
    seconds=3.0,
    skipped=2,
  )
  result = write_report(out, p, fakes.ROWS, fakes.picture)
  return out, p, result


def test_the_page_needs_nothing_else_and_has_every_section(written):
  out, p, _ = written
  page = fakes.read(out / 'report.html')
  assert all(a.startswith(('data:', '#')) for a in page.addresses)
  assert all(a[1:] in page.ids for a in page.addresses if a.startswith('#'))
  assert all(image['alt'] for image in page.images)
  for words in (
    'run <1> on to/pets test',
    'Learning curves',
    'Calibration',
    'Confusion',
    'bee & <b>',
    'Most confused pairs',
    'Worst classes',
    'Most confident mistakes',
    'Boxes',
    'Time and memory',
    '1,234,567',
    'All options',
    'could not be read',
  ):
    assert words in page.text, words


def test_metrics_and_tables_say_the_same(written):
  out, p, result = written
  saved = json.loads((out / 'metrics.json').read_text())
  assert saved == json.loads(json.dumps(result))
  assert saved['accuracy'] == p.correct.mean() and saved['facts']['step'] == 5
  assert saved['training'] == {
    'steps': 5,
    'seconds': 16.0,
    'seconds_estimated': True,
    'img_sec': 4.0,
    'memory_bytes': None,
  }
  with open(out / 'per_class.csv', newline='', encoding='utf-8') as f:
    rows = list(csv.DictReader(f))
  assert [r['class'] for r in rows] == list(p.classes)
  assert [int(r['support']) for r in rows] == [5, 7, 3]
  with open(out / 'confusion.csv', newline='', encoding='utf-8') as f:
    matrix = [[int(x) for x in row[1:]] for row in list(csv.reader(f))[1:]]
  np.testing.assert_array_equal(matrix, metrics.confusion_counts(p))
  with open(out / 'predictions.csv', newline='', encoding='utf-8') as f:
    rows = list(csv.DictReader(f))
  assert sum(int(r['correct']) for r in rows) == p.correct.sum() and rows[4]['iou'] == ''
  np.testing.assert_array_equal(load_predictions(out / 'predictions.npz').logits, p.logits)


def test_figures_are_pngs(written):
  out, _, _ = written
  names = {f.name for f in (out / 'figures').glob('*.png')}
  assert {
    'curve_loss.png',
    'curve_accuracy.png',
    'reliability.png',
    'confidence.png',
    'iou.png',
    'confusion_counts.png',
    'confusion_probability.png',
    'per_class.png',
    'worst_1.png',
    'confident_mistakes.png',
    'boxes.png',
  } <= names
  for name in names:
    with Image.open(out / 'figures' / name) as image:
      assert image.format == 'PNG' and min(image.size) > 100


def test_many_classes_without_pictures_and_a_second_report(tmp_path):
  p = fakes.random(151, 67, skill=1.0, labels=np.arange(151) % 61)
  (tmp_path / 'figures').mkdir()
  (tmp_path / 'figures' / 'curve_loss.png').write_bytes(b'of an earlier report')
  write_report(tmp_path, p)
  page = fakes.read(tmp_path / 'report.html')
  names = {f.stem for f in (tmp_path / 'figures').glob('*.png')}
  assert {'confusion_counts', 'confusion_counts_worst', 'confusion_probability_worst'} <= names
  assert 'curve_loss' not in names and 'Learning curves' not in page.text
  assert '61 of the 67 classes' in page.text and 'The other 41 classes' in page.text


def test_without_matplotlib_the_numbers_are_kept(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r'pip install vit_jax\[figures\]'):
    write_report(tmp_path, fakes.random(7, 3))
  assert (tmp_path / 'metrics.json').exists() and (tmp_path / 'predictions.npz').exists()
  assert not (tmp_path / 'report.html').exists()


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='cannot write a report'):
    write_report(tmp_path / 'file' / 'x', fakes.random(7, 3))


def test_live_pictures_are_arrays():
  images = live_images(fakes.random(19, 5), lambda i: np.zeros((8, 8, 1), np.uint8))
  assert set(images) == {'confusion', 'samples'}
  for image in images.values():
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert min(image.shape[:2]) > 200 and len(np.unique(image)) > 10


def test_live_samples_are_the_same_at_every_evaluation():
  one, other = fakes.random(101, 5, seed=0), fakes.random(101, 5, seed=1)
  assert examples.samples(one, 7) == examples.samples(other, 7) == [0, 17, 33, 50, 67, 83, 100]
  assert examples.samples(fakes.random(3, 2), 16) == [0, 1, 2]


def test_worst_classes_show_the_surest_mistakes_and_what_they_were_taken_for():
  logits = [[0, 3, 0], [0, 5, 0], [2, 0, 0], [0, 4, 0], [0, 0, 1], [9, 0, 0]]
  p = fakes.predictions([0, 0, 0, 1, 2, 2], logits)
  worst = examples.worst_classes(p, metrics.per_class(p))
  assert [w.index for w in worst] == [0, 2]
  assert worst[0].taken_for == [(1, 2)] and worst[0].missed == [1, 0]
  assert worst[0].lookalikes == [(1, 3)]
  assert examples.most_confident_mistakes(p, 2).tolist() == [5, 1]


def test_iou_by_hand():
  one = np.array(
    [
      [0.5, 0.5, 0.4, 0.2],
      [0.5, 0.5, 0.4, 0.2],
      [0.2, 0.2, 0.2, 0.2],
      [0, 0, 0, 0],
      [0.5, 0.5, 0.4, 0.2],
    ]
  )
  other = np.array(
    [[0.5, 0.5, 0.4, 0.2], [0.7, 0.5, 0.4, 0.2], [0.8, 0.8, 0.2, 0.2], [0, 0, 0, 0], [np.nan] * 4]
  )
  np.testing.assert_allclose(boxes.iou(one, other), [1, 1 / 3, 0, 0, np.nan], atol=1e-7)
  assert boxes.iou(np.array([0.5, 0.5, -0.4, 0.2]), one[0]) == 0


def test_box_metrics_count_pictures_that_have_boxes():
  true = np.array([[0.5, 0.5, 0.4, 0.2], [0.5, 0.5, 0.4, 0.2], [np.nan] * 4])
  said = np.array([[0.5, 0.5, 0.4, 0.2], [0.7, 0.5, 0.4, 0.2], [0.5, 0.5, 0.4, 0.2]])
  p = fakes.predictions([0, 1, 2], np.eye(3), boxes_cxcywh=said, true_boxes_cxcywh=true)
  got = boxes.compute(p)
  assert got['boxes'] == 2 and got['mean_iou'] == pytest.approx(2 / 3)
  assert got['iou50'] == got['iou90'] == got['box50_right'] == 0.5
  assert examples.spread_of_boxes(p) == [1, 0]
  assert boxes.compute(fakes.random(5, 3)) == {}


def test_blocks_keep_the_largest_and_excerpts_keep_sums():
  values = np.arange(25.0).reshape(5, 5)
  np.testing.assert_array_equal(matrices.pool(values, 2), [[6, 8, 9], [16, 18, 19], [21, 23, 24]])
  part = matrices.excerpt(values, [4, 1], [0, 3])
  np.testing.assert_array_equal(part, [[20, 23, 110 - 43], [5, 8, 35 - 13]])


def test_confused_classes_stand_together():
  counts = np.zeros((9, 9), int)
  for i, j in ((0, 8), (3, 5), (1, 7)):
    counts[i, j] = counts[j, i] = 4
  counts += 5 * np.eye(9, dtype=int)
  pairs = metrics.confused_pairs(counts, counts / counts.sum(1, keepdims=True))
  order = matrices.most_confused(pairs)
  assert sorted(order) == [0, 1, 3, 5, 7, 8]
  assert all(abs(order.index(i) - order.index(j)) == 1 for i, j in ((0, 8), (3, 5), (1, 7)))


def test_training_time_is_measured_or_added_up():
  assert history.training([], 8) is None
  added = history.training(fakes.ROWS, 8)
  assert (added.steps, added.seconds, added.estimated) == (5, 2 * 8 / 4 + 3 * 8 / 2, True)
  timed = [{**row, 'seconds': 10.0 * row['step']} for row in fakes.ROWS]
  assert (history.training(timed, 8).seconds, history.training(timed, 8).estimated) == (50, False)
  first_unmeasured = [{'step': 5, 'split': 'train'}, {'step': 10, 'split': 'train', 'img_sec': 4.0}]
  assert history.training(first_unmeasured, 8).seconds == 20.0
  assert [r['seconds'] for r in history.with_seconds(fakes.ROWS, 8)] == [4.0, 16.0, 16.0, 16.0]


def test_numbers_for_people():
  assert [history.duration(x) for x in (None, 0.25, 3.21, 245, 7380)] == [
    '–',
    '250 ms',
    '3.2 s',
    '4 min 05 s',
    '2 h 03 min',
  ]
  assert [history.number(x) for x in (None, 5717416, 83.12, 1.234, 0.01234, 1e-7, 0.0)] == [
    '–',
    '5,717,416',
    '83.1',
    '1.23',
    '0.0123',
    '1.00e-07',
    '0',
  ]
  assert history.size(3 * 2**30) == '3.00 GiB' and history.size(5 * 2**20) == '5 MiB'
  assert [examples.percent(x) for x in (1, 0.9999, 0.85, 0.0001, 0)] == [
    '100.0\u00a0%',
    '>\u00a099.9\u00a0%',
    '85.0\u00a0%',
    '<\u00a00.1\u00a0%',
    '0.0\u00a0%',
  ]
  assert canvas.shorten('a' * 10 + 'b' * 10, 11) == 'aaaaaa…bbbb'


def test_logarithmic_axes_have_plain_numbers():
  with canvas.style():
    figure = canvas.new_figure(4, 3)
    axes = figure.subplots()
    axes.plot([0.585, 5.5], [0.002, 3000.0])
    canvas.logarithmic(axes.xaxis)
    canvas.logarithmic(axes.yaxis)
    figure.canvas.draw()
  labels = {t.get_text() for t in axes.get_xticklabels(which='both')} - {''}
  assert {'0.6', '1', '2', '4'} <= labels
  assert {'0.01', '1', '100', '1,000'} <= {t.get_text() for t in axes.get_yticklabels()}
  assert not any('$' in label for label in labels)
