"""The report as files: complete, self-contained, and drawn whatever the classes are."""

import csv
import errno
import json
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from tests.report import fakes
from tests.support import raises
from vit_jax.data import boxes as boxes_lib
from vit_jax.errors import DependencyError, StorageError
from vit_jax.report import (
  Facts,
  ReportLayout,
  Table,
  Title,
  boxes,
  canvas,
  examples,
  figures,
  gallery,
  history,
  live_images,
  load_predictions,
  matrices,
  metrics,
  page,
  text,
  thumbnails,
  write_report,
)

# Names that a page, a template, a formula or a font could trip over.
HOSTILE = (
  '<script>alert(1)</script>',
  '"quoted" \'both\' &amp;',
  '{{ 7 * 7 }} {% raw %} {# no #}',
  'bell \x07 and \x1b[31m escape',
  '$5_$10 \\frac{1}{2}',
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
  result = write_report(out, p, fakes.layout('boxes'), fakes.ROWS, fakes.image)
  return out, p, result


def test_the_page_needs_nothing_else_and_has_every_section(written):
  out, p, _ = written
  page = fakes.read(out / 'report.html')
  fakes.check_self_contained(page, out)
  assert {'per_class.csv', 'confusion.csv', 'predictions.csv'} <= set(page.addresses)
  for words in (
    'run <1> on to/pets test',
    'Learning curves',
    'Test metrics',
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
    'could not be decoded',
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
    'img_sec': 3.0,
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


def test_many_classes_without_images_and_a_second_report(tmp_path):
  p = fakes.random(151, 67, skill=1.0, labels=np.arange(151) % 61)
  (tmp_path / 'figures').mkdir()
  (tmp_path / 'figures' / 'curve_loss.png').write_bytes(b'of an earlier report')
  write_report(tmp_path, p, fakes.layout('classify'))
  page = fakes.read(tmp_path / 'report.html')
  names = {f.stem for f in (tmp_path / 'figures').glob('*.png')}
  assert {'confusion_counts', 'confusion_counts_worst', 'confusion_probability_worst'} <= names
  assert 'curve_loss' not in names and 'Learning curves' not in page.text
  assert '61 of the 67 classes' in page.text and 'The other 41 classes' in page.text


def test_label_sets_have_average_precisions(tmp_path):
  logits = [[2.0, 1.0, -1.0], [-1.0, 1.0, -2.0], [1.0, -3.0, -3.0]]
  shown = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0]], np.uint8)
  p = fakes.predictions([-1] * 3, logits, facts=Facts('s', activation='sigmoid'), multi_hot=shown)
  result = write_report(tmp_path, p, fakes.layout('multilabel'), fakes.ROWS)
  # The first class is ranked first; the second is 1/1, 2/2 (equals), 3/3: the third never occurs.
  assert (result['map'], result['classes_present']) == (1.0, 2)
  assert result['accuracy'] == pytest.approx(2 / 3) and result['exact'] == pytest.approx(2 / 3)
  with open(tmp_path / 'per_class.csv', newline='', encoding='utf-8') as f:
    rows = list(csv.DictReader(f))
  assert [r['average_precision'] for r in rows] == ['1', '1', '']
  assert 'Most confident class is shown over training' in fakes.read(tmp_path / 'report.html').text


def test_every_logged_metric_has_a_curve_and_a_row_without_further_code(tmp_path):
  rows = [{**row, 'my/metric': 0.125 * row['step']} for row in fakes.ROWS]
  p = fakes.random(11, 3)
  write_report(tmp_path, p, fakes.layout('classify'), rows)
  page = fakes.read(tmp_path / 'report.html')
  assert 'my/metric over training' in page.text
  assert (tmp_path / 'figures' / 'curve_my_metric.png').exists()
  assert ['my/metric', 'my/metric', '0.625'] in page.rows
  assert ['Top-1 accuracy', 'accuracy', '55.0\u00a0%'] in page.rows


def test_a_layout_of_ones_own(tmp_path):
  def metrics_of(predictions):
    return {'examples': len(predictions), 'margin': np.float32(0.5), 'nothing': float('nan')}

  def margins(predictions):
    asked.append(predictions)
    ordered = np.sort(predictions.logits, axis=1)
    return ordered[:, -1] - ordered[:, -2]

  def summary(context):
    return [page.paragraph(f'A margin of {context.result["margin"]:.2f} <b>.', 'lead')]

  def section(context):
    found = context.once(margins)
    with canvas.style():
      figure = canvas.new_figure(3, 2)
      figure.subplots().hist(found)
    shown = context.figure('margin', figure, 'Margins', 'How sure it is.')
    return 'The margin', [shown, '<i>escaped</i>', page.table(('image', 'margin'), [('a', 1)])]

  def table(context):
    return Table('margins.csv', ('margin',), zip(context.once(margins)))

  asked = []
  layout = ReportLayout(
    metrics=metrics_of,
    summary=summary,
    sections=(section, lambda context: None, lambda context: ('Empty', [])),
    tables=(table, lambda context: None),
    titles={'margin': Title('mean margin', percent=True, note='Wide is good.')},
  )
  rows = [{'step': 3, 'split': s, 'margin': 0.5} for s in ('train', 'val', 'test')]
  p = fakes.random(7, 3)
  result = write_report(tmp_path, p, layout, rows)
  assert result == json.loads((tmp_path / 'metrics.json').read_text())
  assert (result['examples'], result['margin'], result['nothing']) == (7, 0.5, None)
  assert result['training']['steps'] == 3 and result['facts']['name'] == 'fake'
  seen = fakes.read(tmp_path / 'report.html')
  for words in ('A margin of 0.50 <b>.', 'The margin', 'How sure it is.', '<i>escaped</i>',
                'Mean margin over training', 'Wide is good.', 'Time and memory'):  # fmt: skip
    assert words in seen.text, words
  assert 'Empty' not in seen.text and ['Mean margin', 'margin', '50.0\u00a0%'] in seen.rows
  assert len((tmp_path / 'margins.csv').read_text().splitlines()) == 8 and len(asked) == 1
  assert not (tmp_path / 'confusion.csv').exists()
  assert live_images(p, layout, fakes.image) == {}


def test_hostile_names_are_shown_and_nothing_else(tmp_path):
  ids = tuple(f'test/{name}/{i}.jpg' for i, name in enumerate(HOSTILE))
  rng = np.random.default_rng(0)
  names = dict(zip(('model', 'dataset', 'split', 'devices'), HOSTILE))
  facts = Facts(
    '<img src=x>',
    config={'a': HOSTILE[0]},
    versions={HOSTILE[1]: '1'},
    warnings=HOSTILE[:1],
    **names,
  )
  p = fakes.predictions(np.arange(5), rng.normal(size=(5, 5)), HOSTILE, ids, facts)
  rows = [{**row, '<b>{{ 7 * 7 }}': 1.0} for row in fakes.ROWS]
  write_report(tmp_path, p, fakes.layout('classify'), rows, fakes.image)
  source = (tmp_path / 'report.html').read_text(encoding='utf-8')
  seen = fakes.read(tmp_path / 'report.html')
  assert seen.tags <= fakes.TAGS
  fakes.check_self_contained(seen, tmp_path)
  assert not [c for c in source if ord(c) < 32 and c not in '\n\t' or 127 <= ord(c) < 160]
  for name in HOSTILE:
    readable = text.printable(name.replace('_', ' '))
    assert readable in seen.text, name
  titles = ' '.join(seen.titles)
  for name in HOSTILE:
    assert text.printable(name) in titles, name


def test_names_are_broken_between_their_parts_alone():
  shown = page.table(('test_loss', 'x'), [('runs/lr=0.001,b.c', '<')])
  assert 'test_<wbr>loss' in shown and 'runs/<wbr>lr=<wbr>0.001,<wbr>b.<wbr>c' in shown
  assert '<span class="whole">--config.a=</span>1e-3 a--b' in page.command('--config.a=1e-3 a--b')


def test_file_names_in_no_encoding_are_shown_with_a_replacement(tmp_path):
  Image.new('RGB', (3, 5)).save(tmp_path / 'x.png')
  shown = page.paragraph('caf\udce9.jpg \x00 \ufffe')
  assert shown == '<p>caf\ufffd.jpg \ufffd \ufffd</p>\n'
  page.write(tmp_path / 'p.html', 'caf\udce9', [], [('s\udce9', [shown])], '')
  assert 'caf\ufffd' in fakes.read(tmp_path / 'p.html').text


@pytest.mark.parametrize('skill', [1.0, 90.0])
def test_a_gallery_shows_every_confusion_and_correct_images_each_once(tmp_path, skill):
  """Also where every prediction is correct: nothing was shown then."""
  p = fakes.random(29, 3, skill=skill)
  write_report(tmp_path, p, fakes.layout('classify'), load_image=fakes.image)
  seen = fakes.read(tmp_path / 'report.html')
  fakes.check_self_contained(seen, tmp_path)
  shown = [
    dict(figure) for tag, figure in seen.starts if tag == 'figure' and 'data-true' in dict(figure)
  ]
  assert len(shown) == len(examples.gallery(p)) == len(set(examples.gallery(p))) > 4
  pairs = {(int(f['data-true']), int(f['data-pred'])) for f in shown}
  confused = {(q.true, q.predicted) for q in metrics.confusion(p).pairs}
  assert confused <= pairs
  for figure in shown:
    assert figure['data-kind'] == (
      'correct' if figure['data-true'] == figure['data-pred'] else 'wrong'
    )
    assert 0 <= float(figure['data-confidence']) <= 1
  # Cells of the matrix lead to the first image of their pair.
  links = {v[1:] for tag, k, v in seen.attributes if k == 'href' and v.startswith('#p')}
  assert {f'p{t}-{g}' for t, g in confused} <= links <= seen.ids
  correct = sum(f['data-kind'] == 'correct' for f in shown)
  assert bool(correct) == bool(p.correct.any())


@pytest.mark.parametrize('skill', [-9.0, 0.0, 90.0])
def test_a_gallery_of_a_small_split_shows_all_of_it(skill):
  small, large = (fakes.random(n, 7, skill=skill) for n in (50, 173))
  assert sorted(examples.gallery(small)) == list(range(50))
  assert gallery.which(len(examples.gallery(small)), 50) == 'All 50 images'
  assert len(examples.gallery(large)) < 100
  assert gallery.which(80, 1730) == '80 images of 1,730'


def test_captions_name_prediction_and_truth_with_their_probabilities(tmp_path):
  logits = np.log([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05]])
  p = fakes.predictions([0, 0], logits)
  items = thumbnails.predicted(p, [0, 1], fakes.image)
  nbsp = '\u00a0'
  assert items[0].lines == [f'pred bee, 70.0{nbsp}%', f'true ant, 20.0{nbsp}%']
  assert items[1].lines[0] == f'pred ant, 90.0{nbsp}%' and len(items[1].lines) == 2


def test_cells_of_the_matrix_say_their_values_and_tables_can_be_sorted(tmp_path):
  p = fakes.predictions([0, 0, 0, 1], np.log([[0.8, 0.1, 0.1]] * 2 + [[0.1, 0.8, 0.1]] * 2))
  write_report(tmp_path, p, fakes.layout('classify'), fakes.ROWS)
  seen = fakes.read(tmp_path / 'report.html')
  nbsp = '\u00a0'
  assert any(
    'true ant, predicted bee: 1 image, 33.3' in title and f'33.3{nbsp}%' in title
    for title in seen.titles
  )
  kinds = [v for tag, k, v in seen.attributes if (tag, k) == ('table', 'class')]
  assert kinds.count('sortable') == 2
  # Alternative texts say what is drawn.
  alts = ' '.join(image['alt'] for image in seen.images)
  assert 'training from 2 at step 2 to 1 at step 5' in alts and 'Lowest F1: ' in alts


def test_the_matrix_of_more_classes_than_have_names_is_an_image(tmp_path, monkeypatch):
  monkeypatch.setattr(matrices, 'NAMED', 3)
  for k, image in ((3, False), (4, True)):
    out = tmp_path / str(k)
    write_report(out, fakes.random(3 * k, k, labels=np.arange(3 * k) % k), fakes.layout('classify'))
    seen = fakes.read(out / 'report.html')
    assert any('Confusion matrix of 4' in i['alt'] for i in seen.images) == image
    assert (out / 'figures' / 'confusion_counts.png').exists()


def test_images_of_label_sets_are_told_from_each_other_by_all_their_classes(tmp_path):
  logits = [[2.0, 1.0, -1.0], [-1.0, 1.0, -2.0]]
  shown = np.array([[1, 1, 0], [0, 0, 1]], np.uint8)
  facts = Facts('s', activation='sigmoid')
  p = fakes.predictions([-1] * 2, logits, facts=facts, multi_hot=shown)
  write_report(tmp_path, p, fakes.layout('multilabel'), load_image=fakes.image)
  seen = fakes.read(tmp_path / 'report.html')
  fakes.check_self_contained(seen, tmp_path)
  found = [dict(f) for tag, f in seen.starts if tag == 'figure' and 'data-kind' in dict(f)]
  wanted = [('2', '1', 'wrong', '2'), ('0 1', '0 1', 'correct', '0')]
  names = ('data-true', 'data-pred', 'data-kind', 'data-mistakes')
  assert [tuple(f[name] for name in names) for f in found] == wanted


def test_no_figure_is_wider_than_a_telephone_at_twelve_pixels_of_text(written):
  """390 pixels less the margins; 10 points at 87 pixels an inch are 12 pixels."""
  out, _, _ = written
  for name in ('curve_loss', 'per_class', 'reliability', 'confidence', 'iou'):
    with Image.open(out / 'figures' / f'{name}.png') as image:
      assert 87 * image.width / image.info['dpi'][0] < 390 - 24 + 12, name


def test_without_matplotlib_the_numbers_are_kept(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with raises(DependencyError, 'pip install matplotlib'):
    write_report(tmp_path, fakes.random(7, 3), fakes.layout('classify'))
  assert (tmp_path / 'metrics.json').exists() and (tmp_path / 'predictions.npz').exists()
  assert not (tmp_path / 'report.html').exists()


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  with raises(StorageError, tmp_path / 'file' / 'x'):
    write_report(tmp_path / 'file' / 'x', fakes.random(7, 3), fakes.layout('classify'))


def test_a_disk_that_is_full_on_the_way_leaves_each_file_as_it_was_or_none(tmp_path, monkeypatch):
  def write():
    write_report(tmp_path, fakes.random(7, 3), fakes.layout('classify'))

  def files():
    return {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}

  write()
  whole = files()
  full = OSError(errno.ENOSPC, 'No space left on device')

  def half(open_file, *_, **__):
    if hasattr(open_file, 'write'):
      open_file.write(b'PK')
    else:
      open_file.write_bytes(b'\x89PNG')
    raise full

  class Table:
    def __init__(self, file):
      self._file = file

    def writerow(self, row):
      self._file.write('class,')
      raise full

  for target, stand_in in (
    ('numpy.savez', half),
    ('csv.writer', Table),
    ('matplotlib.figure.Figure.savefig', lambda self, to, **_: half(to)),
  ):
    with monkeypatch.context() as patch:
      patch.setattr(target, stand_in)
      with raises(StorageError, tmp_path, 'No space left'):
        write()
    left = files()
    assert left == {name: whole[name] for name in left} and whole.keys() >= left.keys()
    assert pathlib.Path('report.html') in left


def test_live_images_are_arrays():
  def black(position):
    return np.zeros((8, 8, 1), np.uint8)

  images = live_images(fakes.random(19, 5), fakes.layout('classify'), black)
  assert set(images) == {'confusion', 'samples'}
  for image in images.values():
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert min(image.shape[:2]) > 200 and len(np.unique(image)) > 10


def test_live_samples_are_the_same_at_every_evaluation():
  one, other = fakes.random(101, 5, seed=0), fakes.random(101, 5, seed=1)
  assert examples.samples(one, 7) == examples.samples(other, 7) == [0, 17, 33, 50, 67, 83, 100]
  assert examples.samples(fakes.random(3, 2), 16) == [0, 1, 2]


def test_worst_classes_show_the_most_confident_mistakes_and_what_they_are_predicted_as():
  logits = [[0, 3, 0], [0, 5, 0], [2, 0, 0], [0, 4, 0], [0, 0, 1], [9, 0, 0]]
  p = fakes.predictions([0, 0, 0, 1, 2, 2], logits)
  worst = examples.worst_classes(p)
  assert [w.index for w in worst] == [0, 2]
  assert worst[0].predicted_as == [(1, 2)] and worst[0].missed == [1, 0]
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
  np.testing.assert_allclose(boxes_lib.iou(one, other), [1, 1 / 3, 0, 0, np.nan], atol=1e-7)
  assert boxes_lib.iou(np.array([0.5, 0.5, -0.4, 0.2]), one[0]) == 0


def test_box_metrics_count_images_that_have_boxes():
  true = np.array([[0.5, 0.5, 0.4, 0.2], [0.5, 0.5, 0.4, 0.2], [np.nan] * 4])
  found = np.array([[0.5, 0.5, 0.4, 0.2], [0.7, 0.5, 0.4, 0.2], [0.5, 0.5, 0.4, 0.2]])
  p = fakes.predictions([0, 1, 2], np.eye(3), boxes_cxcywh=found, true_boxes_cxcywh=true)
  got = boxes.compute(p)
  assert got['boxes'] == 2 and got['mean_iou'] == pytest.approx(2 / 3)
  assert got['iou50'] == got['iou90'] == got['box50_right'] == 0.5
  assert boxes.spread(p) == [1, 0]
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
  assert (added.steps, added.seconds, added.seconds_estimated) == (5, 2 * 8 / 4 + 3 * 8 / 2, True)
  timed = history.training([{**row, 'seconds': 10.0 * row['step']} for row in fakes.ROWS], 8)
  assert (timed.seconds, timed.seconds_estimated) == (50, False)
  first_unmeasured = [{'step': 5, 'split': 'train'}, {'step': 10, 'split': 'train', 'img_sec': 4.0}]
  assert history.training(first_unmeasured, 8).seconds == 20.0
  assert [r['seconds'] for r in history.with_seconds(fakes.ROWS, 8)] == [4.0, 16.0, 16.0, 16.0]


def test_numbers_for_people():
  assert [text.duration(x) for x in (None, 0.25, 3.21, 245, 7380)] == [
    '–',
    '250 ms',
    '3.2 s',
    '4 min 05 s',
    '2 h 03 min',
  ]
  assert [text.number(x) for x in (None, 5717416, 83.12, 1.234, 0.01234, 1e-7, 0.0)] == [
    '–',
    '5,717,416',
    '83.1',
    '1.23',
    '0.0123',
    '1.00e-07',
    '0',
  ]
  assert text.size(3 * 2**30) == '3.00 GiB' and text.size(5 * 2**20) == '5 MiB'
  assert text.size(75 << 10) == '75 KiB' and text.size(0) == '0 MiB' and text.size(2**20) == '1 MiB'
  assert [text.percent(x) for x in (1, 0.9999, 0.85, 0.0001, 0)] == [
    '100.0\u00a0%',
    '>\u00a099.9\u00a0%',
    '85.0\u00a0%',
    '<\u00a00.1\u00a0%',
    '0.0\u00a0%',
  ]
  assert text.shorten('a' * 10 + 'b' * 10, 11) == 'aaaaaa…bbbb'


def test_no_axis_has_its_numbers_in_two_places():
  """Weights that hardly move had '+2.15e2' above their axis, small learning rates '1e-5'."""
  for values in ((215.0809, 215.0742), (4e-5, 1e-5), (3e-9, 0.0), (7e12, 1e12)):
    rows = [{'step': i, 'split': 'train', 'x': value} for i, value in enumerate(values)]
    figure = figures.learning_curve(rows, 'x', 'x')
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    assert axis.get_offset_text().get_text() == ''
    shown = [float(label.get_text().replace('\u2212', '-')) for label in axis.get_ticklabels()]
    np.testing.assert_allclose(shown, axis.get_majorticklocs(), rtol=1e-6, atol=1e-12)


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
