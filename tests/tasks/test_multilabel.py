"""Any number of classes per image: average precision, the task, the data, and a whole run."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.support import raises
from vit_jax import config, evaluate, predict, tasks
from vit_jax.data import open_dataset, parse_transform, train_batches
from vit_jax.errors import ConfigError
from vit_jax.logits import average_precision
from vit_jax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLOURS = {'blue': (20, 20, 250), 'green': (20, 250, 20), 'red': (250, 20, 20)}


def test_average_precision_by_hand():
  # Right at ranks 1 and 3: (1/1 + 2/3) / 2. All equal: one threshold, the share of positives.
  scores = np.array([[3.0, 1.0, 0.0], [2.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
  labels = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]])
  np.testing.assert_allclose(average_precision(scores, labels), [5 / 6, 1 / 3, np.nan])
  task = tasks.build('multilabel', 3)
  np.testing.assert_allclose(
    task.split_metrics(scores, {'labels': labels})['map'], (5 / 6 + 1 / 3) / 2
  )


def test_average_precision_is_scikit_learns():
  from sklearn.metrics import average_precision_score

  rng = np.random.default_rng(2)
  scores = np.round(rng.normal(size=(53, 11)), 1)  # with ties
  labels = rng.random((53, 11)) < 0.2
  labels[:, 7] = False  # excluded
  labels[:, 3] = True
  shown = np.delete(np.arange(11), 7)
  wanted = average_precision_score(labels[:, shown], scores[:, shown], average='macro')
  found = tasks.build('multilabel', 11).split_metrics(scores, {'labels': labels})
  np.testing.assert_allclose(found['map'], wanted, rtol=1e-12)


def test_loss_and_metrics_by_hand():
  task = tasks.build('multilabel', 2, loss='softmax')  # an option of other tasks
  logits = jnp.array([[0.0, np.log(3.0)], [-1.0, -2.0]])
  batch = {'labels': jnp.array([[1, 1], [0, 1]], jnp.uint8)}
  found = task.metrics(logits, batch)
  np.testing.assert_allclose(found['loss'][0], -np.log(0.5) - np.log(0.75), rtol=1e-6)
  np.testing.assert_array_equal(found['accuracy'], [1, 0])
  np.testing.assert_array_equal(found['exact'], [0, 0])  # zero is not over one half
  smooth = tasks.build('multilabel', 2, label_smoothing=0.2).targets(batch)
  np.testing.assert_allclose(smooth, [[0.9, 0.9], [0.1, 0.9]], rtol=1e-6)


def test_options_of_one_class_do_not_change_it():
  task = tasks.build('multilabel', 2, loss='softmax')
  assert task.activation == 'sigmoid' and task == tasks.build('multilabel', 2)
  assert task.metric_names == ['loss', 'accuracy', 'exact', 'map'] and task.has_split_metrics


def test_without_any_class_there_is_no_mean_average_precision():
  """0 would be the worst there is."""
  task = tasks.build('multilabel', 2)
  assert task.split_metrics(np.ones((3, 2)), {'labels': np.zeros((3, 2))}) == {}


def make_coco(root):
  """Up to three coloured squares per image."""
  rng = np.random.default_rng(3)
  names = sorted(COLOURS)
  for split, count in (('train', 19), ('val', 7), ('test', 5)):
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
      shown = [k for k in range(3) if rng.random() < 0.5] or [i % 3]
      pixels = rng.integers(0, 60, (37, 53, 3), np.uint8)
      for place, k in enumerate(shown):
        top, left = int(rng.integers(0, 20)), 17 * place
        pixels[top : top + 13 + k, left : left + 13] = COLOURS[names[k]]
        annotations.append(
          {
            'id': len(annotations),
            'image_id': i,
            'category_id': k + 5,
            'bbox': [left, top, 13, 13 + k],
          }
        )
      Image.fromarray(pixels).save(root / split / f'{i}.png')
      images.append({'id': i, 'file_name': f'{i}.png', 'height': 37, 'width': 53})
    (root / split / '_annotations.coco.json').write_text(
      json.dumps(
        {
          'categories': [{'id': k + 5, 'name': name} for k, name in enumerate(names)],
          'images': images,
          'annotations': annotations,
        }
      )
    )
  return root


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return make_coco(tmp_path_factory.mktemp('squares'))


def shown_in(folder, split):
  table = json.loads((folder / split / '_annotations.coco.json').read_text())
  truth = np.zeros((len(table['images']), 3), np.uint8)
  for a in table['annotations']:
    truth[a['image_id'], a['category_id'] - 5] = 1
  return truth


def test_label_sets_are_read_from_annotations(folder):
  dataset = open_dataset(str(folder))
  assert dataset.classes == ('blue', 'green', 'red') and dataset.labels_per_image == 'both'
  examples, truth = dataset.split('train'), shown_in(folder, 'train')
  for i in range(len(examples)):
    number = int(pathlib.Path(examples.id(i)).stem)
    np.testing.assert_array_equal(examples[i]['labels'], truth[number])
    assert examples[i]['labels'][examples[i]['label']] == 1
  chosen = open_dataset(str(folder), classes=('red', 'blue')).split('train')
  number = int(pathlib.Path(chosen.id(0)).stem)
  np.testing.assert_array_equal(chosen[0]['labels'], truth[number][[2, 0]])
  with train_batches(examples, parse_transform('decode|resize(8)'), batch_size=5, seed=0) as b:
    assert next(b)['labels'].shape == (5, 3)


def options(folder, **overrides):
  named = {
    'dataset.name': str(folder),
    'task.name': 'multilabel',
    'total': '4 epochs',
    'batch_size': '4',
    'model.width': '24',
    'model.depth': '1',
    'model.num_heads': '2',
    'model.mlp_dim': '29',
    'model.patch_size': '8',
    'input.image_size': '(32, 48)',
    'input.train_transform': 'decode|resize|flip_lr',
    'input.eval_transform': 'decode|resize',
    'log.tensorboard': 'false',
    'checkpoint.best': 'map',
    'optimizer.name': 'adamw',
    'optimizer.learning_rate': '0.01',
  }
  named |= {k.replace('__', '.'): v for k, v in overrides.items()}
  return config.load(str(ROOT / 'configs/vit_digits.py'), named)


def test_a_run_from_images_to_probabilities(folder, tmp_path, capsys):
  from sklearn.metrics import average_precision_score

  workdir = tmp_path / 'run'
  last = loop.train(options(folder, mixing__mixup='0.2'), str(workdir))
  assert {'map', 'accuracy', 'exact', 'loss'} <= set(last) and last['examples'] == 5
  reported = json.loads((workdir / 'report' / 'metrics.json').read_text())
  for name in ('map', 'accuracy', 'exact'):
    np.testing.assert_allclose(reported[name], last[name], rtol=1e-6)
  assert 'mean average precision' in (workdir / 'report' / 'report.html').read_text().lower()

  capsys.readouterr()
  assert evaluate.main([str(workdir), '--json', f'--report={tmp_path / "again"}']) == 0
  again = json.loads(capsys.readouterr().out.splitlines()[0])
  np.testing.assert_allclose([again['map'], again['loss']], [last['map'], last['loss']], rtol=1e-5)

  images = [str(folder / 'test' / f'{i}.png') for i in range(5)]
  assert predict.main([str(workdir), *images, '--json', '--top_k=3']) == 0
  lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  found = np.zeros((5, 3))
  for row, line in zip(found, lines):
    for prediction in line['predictions']:
      row[prediction['index']] = prediction['probability']
  logits = vit_jax.load(workdir).logits(images)
  np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-5)  # each on its own
  truth = shown_in(folder, 'test')
  shown = truth.any(axis=0)
  wanted = average_precision_score(truth[:, shown], logits[:, shown], average='macro')
  np.testing.assert_allclose(last['map'], wanted, rtol=1e-6)


def test_a_dataset_of_one_class_per_image_is_refused(tmp_path):
  with raises(ConfigError, 'multilabel', 'digits', 'label sets'):
    loop.train(options('digits'), str(tmp_path / 'never'))
