"""Frozen features evaluated while a run trains: scores of the saved model, the run unchanged."""

import jax
import numpy as np
import pytest

import vit_jax
from tests.support import raises
from tests.training import runs
from vit_jax import parallel
from vit_jax.checkpoint import load_run
from vit_jax.errors import ConfigError
from vit_jax.evaluation import few_shot, knn
from vit_jax.evaluation.frozen_evaluator import FrozenEvaluator
from vit_jax.metric_writer import read_metrics
from vit_jax.training import loop
from vit_jax.training.experiment import build_experiment

TINY = {
  'total': '12 steps',
  'log__every': '5 steps',
  'checkpoint__every': '12 steps',
  'evaluation__every': '8 steps',
  'schedule__warmup': '2 steps',
  'dataset__test': '',
}
SCORED = {
  'fewshot__every': '4 steps',
  'fewshot__shots': '2,5',
  'fewshot__draws': '2',
  'fewshot__neighbours': '7,13',
}


def _config(**overrides):
  return runs.options(**TINY | overrides)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """One run with the evaluator and one without."""
  folders = [tmp_path_factory.mktemp('run') for _ in range(2)]
  with runs.reports(False):
    loop.train(_config(**SCORED), str(folders[0]))
    loop.train(_config(), str(folders[1]))
  return folders


def test_training_is_the_same_without_it(trained):
  scored, plain = (jax.tree.leaves(load_run(path, 'last').variables) for path in trained)
  assert all(a.tobytes() == b.tobytes() for a, b in zip(scored, plain, strict=True))


def test_rows_come_when_they_are_due(trained):
  rows = [row for row in read_metrics(trained[0]) if 'knn_7' in row]
  assert [(row['step'], row['split']) for row in rows] == [(4, 'val'), (8, 'val'), (12, 'val')]
  scores = {'fewshot_2', 'fewshot_5', 'knn_7', 'knn_13'}
  assert rows[0].keys() == {'step', 'split', 'seconds'} | scores
  assert not any('knn_7' in row for row in read_metrics(trained[1]))
  metrics = load_run(trained[0], 'last').metrics
  assert metrics['knn_7'] == rows[-1]['knn_7'] and 'loss' in metrics  # so 'best' may be either


def test_scores_are_those_of_the_saved_model(trained):
  """The last row, from features computed by the loaded model one split after the other."""
  loaded = vit_jax.load(trained[0])
  dataset = _config().dataset.open()
  features = {
    name: loaded.features([split[i]['image'] for i in range(len(split))])
    for name, split in (('train', dataset.split('train')), ('val', dataset.split('val')))
  }
  labels = {name: dataset.split(name).labels for name in features}
  drawn = [few_shot.draw(labels['train'], 10, 5, (0, i)) for i in range(2)]
  wanted = {
    f'fewshot_{shots}': np.mean(
      few_shot.accuracies(
        [(features['train'][r], labels['train'][r]) for r in drawn],
        (features['val'], labels['val']),
        10,
        shots,
        (1024.0,),
      )
    )
    for shots in (2, 5)
  }
  rows, similarities = knn.nearest(features['train'], features['val'], 13)
  for k in (7, 13):
    votes = knn.vote(labels['train'][rows[:, :k]], similarities[:, :k], 10, 0.07)
    wanted[f'knn_{k}'] = (votes.argmax(1) == labels['val']).mean()
  found = read_metrics(trained[0])[-1]
  assert found['step'] == 12
  for name, value in wanted.items():
    # Sums in another order may turn a tie: one image of a draw at most.
    assert found[name] == pytest.approx(value, abs=1.01 / len(labels['val'])), name
  assert 0.1 < wanted['fewshot_2'] <= 1


def _evaluator(options, placement, **overrides):
  config = _config(**options)
  run = build_experiment(config)
  arguments = dict(
    options=config.fewshot,
    train=run.train,
    val=run.held_out['val'],
    num_classes=10,
    transform=run.eval_transform,
    module=run.module,
    preprocess=run.preprocess,
    placement=placement,
    batch_size=13,
    seed=3,
    loading={},
  )
  return FrozenEvaluator(**arguments | overrides), run


def test_placements_agree_and_every_evaluation_is_the_same():
  options = SCORED | {'fewshot__neighbours': '', 'fewshot__l2': '1,1024'}
  found = []
  for name in parallel.PLACEMENTS:
    placement = parallel.make(name)
    evaluator, run = _evaluator(options, placement)
    variables = placement.put_state(run.variables()[0])
    found += [evaluator(variables), evaluator(variables)]
  assert found[::2] == found[1::2]
  assert found[0].keys() == {'fewshot_2', 'fewshot_5'}
  for other in found[2::2]:
    assert found[0] == pytest.approx(other, abs=0.02)


class Broken:
  """Digits among which one image cannot be decoded."""

  def __init__(self, examples, bad):
    self.examples, self.bad, self.labels = examples, bad, examples.labels

  def take(self, rows):
    taken = Broken(self.examples.take(rows), None)
    where = np.flatnonzero(rows == self.bad)
    taken.bad = int(where[0]) if len(where) else None
    return taken

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, i):
    example = self.examples[i]
    return {**example, 'image': b'nothing'} if i == self.bad else example

  def id(self, i):
    return self.examples.id(i)

  def place(self, i):
    return self.examples.place(i)


def test_images_that_cannot_be_decoded_are_left_out():
  placement = parallel.make('data', jax.devices()[:1])
  run = build_experiment(_config())
  evaluator, _ = _evaluator(
    SCORED,
    placement,
    train=Broken(run.train, 5),
    val=Broken(run.held_out['val'], 2),
    loading={'on_error': 'skip'},
  )
  scores = evaluator(placement.put_state(run.variables()[0]))
  readable = len(run.held_out['val']) - 1
  assert scores['knn_7'] * readable == pytest.approx(round(scores['knn_7'] * readable))
  assert np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize(
  'overrides, facts',
  [
    ({'fewshot__every': '4 steps', 'dataset__val': ''}, ['config.fewshot.every', 'dataset.val']),
    (
      {'fewshot__every': '4 steps', 'fewshot__shots': '1000'},
      ['config.fewshot.shots', '1000 shots'],
    ),
    (
      {'fewshot__every': '4 steps', 'fewshot__neighbours': '9999'},
      ['config.fewshot.neighbours=9999', '1297'],
    ),
    ({'fewshot__every': 'often'}, ['config.fewshot.every', "'often'"]),
    ({'fewshot__shots': '0'}, ['config.fewshot.shots', 'at least 1', '(0,)']),
    ({'fewshot__l2': ''}, ['config.fewshot.l2']),
    (
      {'fewshot__every': '1 epoch', 'fewshot__shots': '', 'fewshot__neighbours': ''},
      ['config.fewshot.every', 'shots', 'neighbours'],
    ),
    ({'input__repeats': '0'}, ['config.input.repeats', 'at least 1']),
  ],
)
def test_mistakes_are_reported_before_the_first_step(tmp_path, overrides, facts):
  with raises(ConfigError, *facts):
    loop.train(_config(**overrides), str(tmp_path))
