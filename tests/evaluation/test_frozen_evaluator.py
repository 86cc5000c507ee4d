"""Frozen features scored while a run trains: the same numbers as by hand, and nothing disturbed."""

import pathlib

import jax
import numpy as np
import pytest

import vit_jax
from vit_jax import config, parallel
from vit_jax.checkpoint import load_run
from vit_jax.errors import UserError
from vit_jax.evaluation import few_shot, knn
from vit_jax.evaluation.frozen_evaluator import FrozenEvaluator
from vit_jax.metric_writer import read_metrics
from vit_jax.training import loop
from vit_jax.training.experiment import prepare

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {
  'model.width': '16',
  'model.depth': '1',
  'model.num_heads': '2',
  'model.mlp_dim': '24',
  'model.dropout': '0.1',
  'batch_size': '16',
  'total': '12 steps',
  'log.every': '5 steps',
  'checkpoint.every': '12 steps',
  'evaluation.every': '8 steps',
  'log.tensorboard': 'false',
  'schedule.warmup': '2 steps',
  'dataset.test': '',
}
SCORED = {
  'fewshot.every': '4 steps',
  'fewshot.shots': '2,5',
  'fewshot.draws': '2',
  'fewshot.neighbours': '7,13',
}


def _config(**overrides):
  named = {name.replace('__', '.'): value for name, value in overrides.items()}
  return config.load(str(ROOT / 'configs/vit_digits.py'), TINY | named)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """One run with the evaluator and one without."""
  folders = [tmp_path_factory.mktemp('run') for _ in range(2)]
  loop.train(_config(**SCORED), str(folders[0]))
  loop.train(_config(), str(folders[1]))
  return folders


def test_training_is_not_disturbed(runs):
  scored, plain = (jax.tree.leaves(load_run(path, 'last').variables) for path in runs)
  assert all(a.tobytes() == b.tobytes() for a, b in zip(scored, plain, strict=True))


def test_rows_come_when_they_are_due(runs):
  rows = [row for row in read_metrics(runs[0]) if 'knn_7' in row]
  assert [(row['step'], row['split']) for row in rows] == [(4, 'val'), (8, 'val'), (12, 'val')]
  assert rows[0].keys() == {'step', 'split', 'fewshot_2', 'fewshot_5', 'knn_7', 'knn_13'}
  assert not any('knn_7' in row for row in read_metrics(runs[1]))
  metrics = load_run(runs[0], 'last').metrics
  assert metrics['knn_7'] == rows[-1]['knn_7'] and 'loss' in metrics  # so 'best' may be either


def test_scores_are_those_of_the_saved_model(runs):
  """The last row, from features computed by the loaded model one split after the other."""
  loaded = vit_jax.load(runs[0])
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
  found = read_metrics(runs[0])[-1]
  assert found['step'] == 12
  for name, value in wanted.items():
    # Sums in another order may turn a tie: one picture of a draw at most.
    assert found[name] == pytest.approx(value, abs=1.01 / len(labels['val'])), name
  assert 0.1 < wanted['fewshot_2'] <= 1


def _evaluator(options, placement, **overrides):
  run = prepare(_config(**options))
  arguments = dict(
    options=run.config.fewshot,
    train=run.train,
    val=run.held_out['val'],
    num_classes=10,
    transform=run.eval_transform,
    module=run.module,
    preprocess=run.preprocess,
    placement=placement,
    batch_size=13,
    seed=3,
    reading={},
  )
  return FrozenEvaluator(**arguments | overrides), run


def test_placements_agree_and_every_evaluation_is_the_same():
  options = SCORED | {'fewshot.neighbours': '', 'fewshot.l2': '1,1024'}
  found = []
  for name in ('data', 'pmap'):
    placement = parallel.make(name)
    evaluator, run = _evaluator(options, placement)
    variables = placement.put_state(run.variables())
    found += [evaluator(variables), evaluator(variables)]
  assert found[0] == found[1] and found[2] == found[3]
  assert found[0].keys() == {'fewshot_2', 'fewshot_5'}
  assert found[0] == pytest.approx(found[2], abs=0.02)


class Broken:
  """Digits among which one picture cannot be read."""

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


def test_unreadable_pictures_are_left_out():
  placement = parallel.make('data', jax.devices()[:1])
  run = prepare(_config())
  evaluator, _ = _evaluator(
    SCORED,
    placement,
    train=Broken(run.train, 5),
    val=Broken(run.held_out['val'], 2),
    reading={'on_error': 'skip'},
  )
  scores = evaluator(placement.put_state(run.variables()))
  readable = len(run.held_out['val']) - 1
  assert scores['knn_7'] * readable == pytest.approx(round(scores['knn_7'] * readable))
  assert np.isfinite(list(scores.values())).all()


@pytest.mark.parametrize(
  'overrides, words',
  [
    ({'fewshot.every': '4 steps', 'dataset.val': ''}, 'on validation pictures'),
    (
      {'fewshot.every': '4 steps', 'fewshot.shots': '1000'},
      'config.fewshot.shots: 1000 shots need',
    ),
    ({'fewshot.every': '4 steps', 'fewshot.neighbours': '9999'}, 'config.fewshot.neighbours=9999'),
    ({'fewshot.every': 'often'}, 'config.fewshot.every: expected a length'),
    ({'fewshot.shots': '0'}, 'config.fewshot.shots takes positive numbers'),
    ({'fewshot.l2': ''}, 'config.fewshot.l2'),
    (
      {'fewshot.every': '1 epoch', 'fewshot.shots': '', 'fewshot.neighbours': ''},
      'nothing to score',
    ),
    ({'input.repeats': '0'}, 'config.input.repeats must be from 1'),
  ],
)
def test_mistakes_are_told_before_the_first_step(tmp_path, overrides, words):
  with pytest.raises(UserError, match=words):
    loop.train(_config(**overrides), str(tmp_path))
