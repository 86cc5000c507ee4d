"""Comparisons: the same images or a refusal, paired tests by hand, a page."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from tests.report import fakes
from tests.support import raises
from vit_jax import compare as command
from vit_jax.comparison import disagreements, figures, gather, page, significance, verdict, write
from vit_jax.errors import CheckpointError, ConfigError, DatasetError
from vit_jax.report import Facts, text


def facts(name: str, **rest) -> Facts:
  options = {'batch_size': 8, 'optimizer': {'learning_rate': 0.1}}
  return Facts(
    name,
    **{
      'model': 'vit_fake',
      'dataset': 'data/pets',
      'split': 'test',
      'config': options,
      'parameters': 2_000_000,
      'trained_parameters': 1_000_000,
      'devices': '1 x fake',
      **rest,
    },
  )


def make_run(folder, seed: int, skill: float, n: int = 53, labels=None, **rest):
  """A run's folder with metrics.jsonl and predictions of a known accuracy."""
  (folder / 'report').mkdir(parents=True)
  labels = np.arange(n) % 5 if labels is None else labels
  p = fakes.random(n, 5, seed, skill, labels, seconds=4.0, facts=facts(folder.name, **rest))
  p.save(folder / 'report' / 'predictions.npz')
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in fakes.ROWS))
  return p


def test_mcnemar_and_the_interval_by_hand():
  first = np.array([1] * 10 + [0] * 2 + [1] * 60 + [0] * 28, bool)
  second = np.array([0] * 10 + [1] * 2 + [1] * 60 + [0] * 28, bool)
  got = significance.paired(first, second)
  assert (got.only_first, got.only_second, got.difference) == (10, 2, 0.08)
  assert got.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12, abs=1e-12)
  # Standard error of the difference: sqrt(0.12 - 0.08 ** 2) / 10.
  assert got.interval == pytest.approx((0.08 - 1.96 * 0.0337, 0.08 + 1.96 * 0.0337), abs=0.011)
  # By hand, of 11/102 and 3/102: their difference, and sqrt((14/102 - (8/102)^2) / 102).
  assert got.interval == pytest.approx(
    (8 / 102 - 1.96 * 0.0358516, 8 / 102 + 1.96 * 0.0358516), abs=1e-4
  )
  same = significance.paired(first, first)
  assert same.p_value == 1.0 and same.difference == 0
  # 1/102 twice: sqrt(2 / 102 / 102).
  assert same.interval == pytest.approx((-1.96 * 0.013865, 1.96 * 0.013865), abs=1e-5)


def test_the_other_way_round_is_the_mirror_image():
  rng = np.random.default_rng(0)
  one, other = rng.random(97) < 0.8, rng.random(97) < 0.6
  forth, back = significance.paired(one, other), significance.paired(other, one)
  assert forth.p_value == back.p_value and forth.difference == -back.difference


def test_holm_by_hand():
  assert significance.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert significance.holm([0.5, 0.9]) == [1.0, 1.0]
  assert significance.holm([0.02]) == [0.02]


def test_runs_of_equal_cost_stand_side_by_side():
  found = figures.spread([5.0, 5.0])
  first, second = found.places
  assert second - first == pytest.approx(0.06 * 1.5 * 0.5) and first + second == pytest.approx(10)
  assert found.only == 5.0 and found.beside and not found.logarithmic
  assert figures.spread([3.0, 2.0])[0::3] == ([3.0, 2.0], None)
  assert not figures.spread([3.0, 2.0]).beside
  found = figures.spread([1.0, 100.0, 100.0, 100.0])  # log axis of 1.5 * log(100)
  assert found.logarithmic and found.places[:1] == [1.0] and found.places[2] == pytest.approx(100)
  assert np.log(found.places[3] / 100) == pytest.approx(0.06 * 1.5 * np.log(100))
  for values in ([7.0] * 20, [1.0, *[50.0] * 8], [1.0, 1.001, 2.0]):
    found = figures.spread(values)
    low, high = found.limits
    assert low < min(found.places) and max(found.places) < high and found.beside
    assert len({round(p, 6) for p in found.places}) == len(values)


def test_names_that_are_cut_still_differ():
  names = [f'{"a" * 30}={value},{"b" * 30}' for value in (1, 2)]
  one, two = text.shorten_all(names, 22)
  assert one != two and 22 < len(one) == len(two) < len(names[0])
  assert text.shorten_all(['short', 'x' * 40], 22) == ['short', text.shorten('x' * 40)]
  assert text.shorten_all(['same', 'same'], 22) == ['same', 'same']


def test_a_page_a_table_and_json(tmp_path, capsys):
  a, b = tmp_path / 'vit', tmp_path / 'cnn'
  p = make_run(a, 0, 5.0)
  make_run(b, 1, 0.2, config={'batch_size': 16, 'optimizer': {'learning_rate': 0.1}})
  out = tmp_path / 'out'
  assert command.main([str(a), str(b / 'report'), f'--out={out}']) == 0
  printed = capsys.readouterr().out
  assert 'vit' in printed and 'cnn' in printed and 'top-1 accuracy' in printed
  said = printed[printed.index('Most accurate is vit with ') :].splitlines()[0]
  assert 'over cnn (95 % interval +' in said and 'is significant (p < 0.0001)' in said
  result = json.loads((out / 'compare.json').read_text())
  assert [r['name'] for r in result['runs']] == ['vit', 'cnn'] and result['pictures'] == 53
  first, second = result['runs']
  assert first['accuracy'] == p.correct.mean()
  # ROWS: 5 steps of 8 at 4 and 2 images/s, or of 16.
  assert first['training_seconds'] == 16.0 and second['training_seconds'] == 32.0
  assert first['seconds_per_parameter'] == 16e-6
  assert result['pairs'][0]['p_value'] < 1e-4
  with open(out / 'compare.csv', newline='') as f:
    rows = list(csv.DictReader(f))
  assert [r['run'] for r in rows] == ['vit', 'cnn'] and float(rows[0]['accuracy_low']) < 1
  html = fakes.read(out / 'compare.html')
  fakes.check_self_contained(html, out)
  for words in (
    'Most accurate is vit',
    'McNemar',
    'batch_size',
    'Recall of each class',
    'per million trained parameters',
    '16.0 s',
    'Validation accuracy over steps',
    'added up from the training rate',
    'verdict (p\u00a0<\u00a00.05)',
    'vit better',
  ):
    assert words in html.text, words
  assert said in html.text.replace('\u00a0', ' ')
  assert 'learning_rate' not in html.text  # the same in both


def test_disagreements_have_images_and_runs_links_to_their_reports(tmp_path):
  from vit_jax import config

  digits = config.Dataset(name='digits').open().split('test')
  labels = np.array([digits[i]['label'] for i in range(40)])
  options = {'batch_size': 8, 'dataset': {'name': 'digits'}}
  for name, skill in (('a', 3.0), ('b', 1.0)):
    ids = tuple(digits.id(i) for i in range(40))
    of = facts(name, config=options, dataset='digits')
    (tmp_path / name / 'report').mkdir(parents=True)
    p = fakes.random(40, 10, len(name + str(skill)), skill, labels, ids=ids, facts=of)
    p.save(tmp_path / name / 'report' / 'predictions.npz')
    (tmp_path / name / 'report' / 'report.html').write_text('<p>a report')
  out = tmp_path / 'out'
  runs = [str(tmp_path / name) for name in 'ab']
  assert command.main([*runs, f'--out={out}']) == 0
  html = fakes.read(out / 'compare.html')
  fakes.check_self_contained(html, out)
  assert '../a/report/report.html' in html.addresses
  one, other = (run.predictions.correct for run in gather.gather(runs))
  shown = [dict(a) for tag, a in html.starts if tag == 'figure' and 'data-kind' in dict(a)]
  assert len(shown) == (one != other).sum() > 0
  assert sum(f['data-kind'] == '0' for f in shown) == (one & ~other).sum()
  (axes,) = disagreements.sheet(gather.gather(runs), most=5).axes
  assert len(axes.images) == 5 and [text.get_text()[:5] for text in axes.texts] == ['true '] * 5
  with open(out / 'disagreements.csv', newline='') as f:
    assert len(list(csv.reader(f))) == 1 + len(shown)


def test_disagreements_without_their_dataset_are_a_table(tmp_path):
  for seed, name in enumerate('ab'):
    make_run(tmp_path / name, seed, 1.0)
  out = tmp_path / 'out'
  assert command.main([*(str(tmp_path / n) for n in 'ab'), f'--out={out}']) == 0
  html = fakes.read(out / 'compare.html')
  fakes.check_self_contained(html, out)
  assert any('only a correct' in row for row in html.rows)
  assert not [image for image in html.images if 'true' in image['alt'].split(',')[0]]


def test_five_images_on_which_two_runs_agree_do_not_show_that_they_are_equal():
  """The bootstrap said 0.0 to 0.0 points, of any two runs without a disagreement."""
  got = significance.paired(np.ones(5, bool), np.ones(5, bool))
  assert got.interval[0] < -0.3 and got.interval[1] > 0.3
  none = significance.paired(np.ones(1, bool), np.zeros(1, bool))
  assert -1 <= none.interval[0] < none.interval[1] <= 1


@pytest.mark.parametrize(
  'skills, said, not_said',
  [
    ((9.0, 9.0), 'A tie: a and b are most accurate', 'its lead'),
    ((9.0, 9.0), 'each (difference 0.0 points, 95 % interval -5.0 to +5.0)', 'significant'),
    ((9.0, 9.0, 0.0), 'Their lead over every other run is significant', 'most accurate is'),
    ((9.0, 9.0, 9.0), 'A tie: a, b and c are most accurate', 'interval'),
    ((9.0, 0.0), 'Most accurate is a', 'not significant'),
    ((0.0, 9.0), 'Most accurate is b', 'not significant'),
  ],
)
def test_the_most_accurate_are_all_named(tmp_path, skills, said, not_said):
  """All that are right on the same number of images."""
  folders = [tmp_path / name for name in 'abc'[: len(skills)]]
  for folder, skill in zip(folders, skills):
    make_run(folder, 0, skill + 20 * (skill > 1))
  runs = gather.gather([str(f) for f in folders])
  text = verdict.of_runs(runs, significance.pairs(runs)).replace('\u00a0', ' ')
  assert said in text and not_said.lower() not in text.lower(), text


def _pair_of(first: np.ndarray, second: np.ndarray):
  """Two runs called a and b that are right on these images."""
  runs = []
  for name, right in (('a', first), ('b', second)):
    labels = np.zeros(len(right), int)
    p = fakes.predictions(labels, np.where(right, 9.0, -9.0)[:, None] * [[1.0, 0.0, -1.0]])
    runs.append(gather.Run(name, name, p, ()))
  return runs, significance.pairs(runs)


def test_a_verdict_says_who_leads_by_how_much_or_that_it_is_a_tie():
  """53 images: 30 to 29 of them, 30 to 10, and 30 each but others."""
  right = np.arange(53) < 30
  for second, said, of_pair in (
    (
      np.arange(53) < 29,
      '1.9 points over b (95 % interval -4.3 to +8.0) is not',
      'not significant',
    ),
    (np.arange(53) < 10, '37.7 points over b (95 % interval', 'a better'),
    (np.arange(53) >= 23, 'difference 0.0 points', 'tie'),
  ):
    runs, pairs = _pair_of(right, second)
    assert said in verdict.of_runs(runs, pairs).replace('\u00a0', ' ')
    assert verdict.of_pair(pairs[0]) == of_pair
    swapped, back = _pair_of(second, right)
    told = verdict.of_runs(swapped, back).replace('\u00a0', ' ')
    assert said.replace('over b', 'over a') in told
    assert verdict.of_pair(back[0]) == of_pair.replace('a better', 'b better')


def test_a_long_cell_of_the_terminal_continues_below(tmp_path):
  make_run(tmp_path / 'a', 0, 1.0, model='vit_ti16 (' + 'width=64 depth=4 ' * 4 + ')')
  make_run(tmp_path / 'b', 1, 1.0)
  text = write.text_table(gather.gather([str(tmp_path / name) for name in 'ab']))
  lines = text.splitlines()
  assert len({len(line) for line in lines}) == 1 and len(lines[0]) < 120
  assert text.count('width=64') == 4 and lines[1].split()[0] == 'model'


def test_rates_of_a_single_batch_are_named_in_a_comparison(tmp_path):
  """One run has no rate without compilation: the note does not say that it was excluded."""
  for name in 'ab':
    make_run(tmp_path / name, 0, 1.0)
  runs = gather.gather([str(tmp_path / name) for name in 'ab'])
  assert 'single batch' in str(page._notes(runs)) and 'a, b' in str(page._notes(runs))
  warm = [
    dataclasses.replace(r, predictions=dataclasses.replace(r.predictions, img_sec=9.0))
    for r in runs
  ]
  assert 'single batch' not in str(page._notes(warm))


def test_images_are_paired_by_id_whatever_their_order(tmp_path):
  p = make_run(tmp_path / 'a', 0, 1.0)
  order = np.random.default_rng(0).permutation(len(p))
  (tmp_path / 'b' / 'report').mkdir(parents=True)
  fakes.predictions(
    p.labels[order], p.logits[order], p.classes, [p.ids[i] for i in order], facts('b')
  ).save(tmp_path / 'b' / 'report' / 'predictions.npz')
  runs = gather.gather([str(tmp_path / 'a'), str(tmp_path / 'b')])
  np.testing.assert_array_equal(runs[1].predictions.logits, p.logits)
  (pair,) = significance.pairs(runs)
  assert (pair.test.only_first, pair.test.only_second) == (0, 0) and not pair.significant


def test_classes_may_be_numbered_otherwise_but_not_named_otherwise():
  a = fakes.predictions([0, 1], np.eye(3)[:2], ('ant', 'bee', 'cat'))
  b = fakes.predictions([2, 0], np.eye(4)[:2], ('Bee', 'dog', 'ant', 'cow'))
  gather.refuse_different_tests({'a': a, 'b': b})
  c = fakes.predictions([1, 1], np.eye(3)[:2], ('ant', 'bee', 'cat'))
  with raises(DatasetError, '1 image has another class', "'ant' in a, 'bee' in c"):
    gather.refuse_different_tests({'a': a, 'c': c})


def test_other_images_are_refused_with_the_reason(tmp_path):
  make_run(tmp_path / 'a', 0, 1.0, n=53)
  make_run(tmp_path / 'b', 0, 1.0, n=47)
  facts = ('different images', '6 of 53 images of', "'test/47.jpg'", 'vit_jax.evaluate')
  with raises(DatasetError, *facts):
    gather.gather([str(tmp_path / 'a'), str(tmp_path / 'b')])


def test_a_run_of_several_classes_per_image_is_refused(tmp_path):
  make_run(tmp_path / 'one', 1, 0.9)
  many = make_run(tmp_path / 'many', 2, 0.5)
  shown = np.eye(5, dtype=np.uint8)[many.labels]
  file = tmp_path / 'many' / 'report' / 'predictions.npz'
  dataclasses.replace(many, multi_hot=shown).save(file)
  with raises(DatasetError, file, 'several classes per image'):
    command.main([str(tmp_path / 'one'), str(tmp_path / 'many'), f'--out={tmp_path / "out"}'])
  assert not (tmp_path / 'out').exists()


def test_what_is_no_run_is_refused(tmp_path):
  make_run(tmp_path / 'a', 0, 1.0)
  (tmp_path / 'empty').mkdir()
  a = str(tmp_path / 'a')
  with raises(ConfigError, 'two runs', a):
    command.main([a, '--out=x'])
  with raises(ConfigError, 'twice', a):
    gather.gather([a, a + '/'])
  with raises(CheckpointError, tmp_path / 'gone'):
    gather.gather([a, str(tmp_path / 'gone')])
  (tmp_path / 'probe.safetensors').write_bytes(b'')
  for name in ('empty', 'probe.safetensors'):  # what makes something to compare of weights
    path = tmp_path / name
    with raises(CheckpointError, f'python -m vit_jax.evaluate {path} --report=DIR', 'DIR can be'):
      gather.gather([a, str(path)])


def test_a_run_without_a_report_is_evaluated_first(tmp_path, monkeypatch):
  from vit_jax.evaluation import standalone

  make_run(tmp_path / 'a', 0, 1.0)
  (tmp_path / 'b' / 'checkpoints').mkdir(parents=True)
  asked = []

  def fake(model, **options):
    asked.append((model, options))
    make_run(tmp_path / 'b', 1, 1.0)

  monkeypatch.setattr(standalone, 'evaluate', fake)
  runs = gather.gather([str(tmp_path / 'a'), str(tmp_path / 'b')])
  expected = {'split': 'test', 'report_dir': str(tmp_path / 'b' / 'report')}
  assert asked == [(str(tmp_path / 'b'), expected)]
  assert [run.name for run in runs] == ['a', 'b']


def test_names_are_as_short_as_they_can_be():
  assert gather.short_names(['/r/x/vit', '/r/x/cnn/report']) == ['vit', 'cnn']
  assert gather.short_names(['/r/x/vit', '/r/y/vit']) == ['x/vit', 'y/vit']


def test_reports_of_version_0_1_are_read(tmp_path):
  """Their record calls the activation 'link', as do files of today."""
  rng = np.random.default_rng(5)
  labels = np.arange(7, dtype=np.int32) % 3
  facts = {
    'name': 'old',
    'model': 'vit_ti16',
    'dataset': 'pets',
    'split': 'test',
    'step': 10,
    'image_size': [32, 48],
    'link': 'sigmoid',
    'config': {'batch_size': 8},
    'parameters': 5,
    'trained_parameters': None,
    'devices': '1 x cpu',
    'host_memory_bytes': 1,
    'device_memory_bytes': None,
    'versions': {'vit_jax': '0.1.0'},
  }
  record = {'facts': facts, 'seconds': 2.0, 'img_sec': None, 'skipped': 1}
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    np.savez(
      tmp_path / name / 'predictions.npz',
      record=np.array(json.dumps(record)),
      labels=labels,
      logits=rng.normal(size=(7, 3)).astype(np.float32),
      index=np.arange(7),
      ids=np.array([f'test/{i}.jpg' for i in range(7)]),
      classes=np.array(['ant', 'bee', 'cat']),
    )
    (tmp_path / name / 'metrics.json').write_text('{"accuracy": 0.5}')
  a, b = gather.gather([str(tmp_path / 'a'), str(tmp_path / 'b')])
  assert (a.predictions.facts.activation, a.predictions.facts.image_size) == ('sigmoid', (32, 48))
  assert a.predictions.facts.to_json() == {**facts, 'image_size': (32, 48), 'warnings': ()}
  logits = a.predictions.logits
  np.testing.assert_allclose(a.predictions.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)
  assert b.predictions.skipped == 1
  assert command.main([a.path, b.path, f'--out={tmp_path / "out"}']) == 0


def test_hostile_names_of_runs_are_shown_and_nothing_else(tmp_path):
  names = ('<script>x<', '{{ 7 * 7 }}"\x07')
  for seed, name in enumerate(names):
    make_run(tmp_path / name, seed, 1.0, config={'batch_size': 8, name: name})
  runs = [str(tmp_path / name) for name in names]
  assert command.main([*runs, f'--out={tmp_path / "out"}']) == 0
  source = (tmp_path / 'out' / 'compare.html').read_text()
  html = fakes.read(tmp_path / 'out' / 'compare.html')
  assert html.tags <= fakes.TAGS and '\x07' not in source
  fakes.check_self_contained(html, tmp_path / 'out')
  for name in ('<script>x<', '{{ 7 * 7 }}"\ufffd'):
    assert name in html.text
