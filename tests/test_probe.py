"""The linear probe: its head against scikit-learn, its cache, and the command on tiny pictures."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.models import small
from vit_jax import convert, evaluate
from vit_jax import probe as command
from vit_jax.data import Preprocess, open_dataset
from vit_jax.errors import UserError
from vit_jax.evaluation import linear_probe as probe
from vit_jax.evaluation.feature_cache import FeatureCache
from vit_jax.inference.loaded import Loaded

PREPROCESS = Preprocess('decode|resize(16, 24)')
COLOURS = {'green': (20, 200, 60), 'red': (210, 30, 40), 'violet': (120, 40, 200)}


def clusters(k, n=41, d=7, seed=0, spread=1.5):
  """Features of overlapping clusters, one channel constant and one of another size."""
  rng = np.random.default_rng(seed)
  labels = (np.arange(n) % k).astype(np.int32)
  centres = np.random.default_rng(99).standard_normal((k, d))
  x = centres[labels] + spread * rng.standard_normal((n, d))
  x[:, 2], x[:, 3] = 5.0, 1000 * x[:, 3]
  return x.astype(np.float32), labels


@pytest.mark.parametrize('k', [2, 3])
def test_head_equals_scikit_learns_pipeline(k):
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler

  x, labels = clusters(k)
  head = probe.fit_head(x, labels, k, c=0.1)
  wanted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=999)).fit(x, labels)
  assert head.kernel.shape == (7, k) and head.bias.shape == (k,)
  exp = np.exp(head(x))
  np.testing.assert_allclose(
    exp / exp.sum(axis=1, keepdims=True), wanted.predict_proba(x), atol=1e-6
  )


def test_penalty_is_the_best_on_val_and_the_same_every_time_by_folds():
  train, val = clusters(3), clusters(3, seed=1)
  head = probe.fit_head(*train, 3, val=val)
  accuracy = [
    probe.score(probe.fit_head(*train, 3, c=c), *val)['accuracy'] for c in probe.PENALTIES
  ]
  assert probe.score(head, *val)['accuracy'] == pytest.approx(max(accuracy), abs=1.01 / 41)
  folds = [probe.fit_head(*train, 3).c for _ in range(2)]
  assert folds[0] == folds[1] and folds[0] in probe.PENALTIES


def test_score_by_hand():
  head = probe.Head(np.eye(5), np.zeros(5), 1.0)
  x = np.array([[9, 1, 2, 3, 4], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4], [0, 0, 0, 0, 1]], np.float32)
  result = probe.score(head, x, np.array([0, 2, 0, 4]))
  assert result['accuracy'] == 0.5  # the first and the last
  assert result['top3'] == 0.75
  assert result['examples'] == 4
  last = -np.log(np.e / (4 + np.e))
  assert probe.score(head, x[3:], np.array([4]))['loss'] == pytest.approx(last)


@pytest.mark.parametrize(
  'labels, k, c, words',
  [
    ([0, 0, 2, 2], 3, None, '1 of 3 classes have no picture .* number 1'),
    ([0, 0, 1], 2, None, 'one picture .* --val split or --c'),
    ([0, 0, 0], 1, 0.1, 'at least two classes'),
  ],
)
def test_too_few_pictures(labels, k, c, words):
  with pytest.raises(UserError, match=words):
    probe.fit_head(np.eye(len(labels)), np.array(labels), k, c)


class Fake:
  """A model whose features are the means of the channels; it counts the pictures it is given."""

  def __init__(self, weight=1.0):
    self.variables = {'params': {'w': np.array([weight]), 'head': {'kernel': np.ones(3)}}}
    self.config = {'model': {'name': 'fake'}}
    self.preprocess = PREPROCESS
    self.seen = 0

  def features(self, images, what, problems):
    assert what == 'pooled'
    self.seen += len(images)
    return np.stack([np.asarray(x, np.float32).mean(axis=(0, 1)) for x in images])


def test_cache_computes_each_picture_once_for_each_model(tmp_path):
  fake, dataset = Fake(), open_dataset('digits', per_class=7)
  test, train = dataset.split('test'), dataset.split('train[:13]')
  cache = FeatureCache(fake, tmp_path, 'digits')
  first = cache.features(test, 'test')
  assert (first.computed, first.skipped, fake.seen) == (len(test), 0, len(test))
  np.testing.assert_allclose(first.x[5], test[5]['image'].mean(axis=(0, 1)), rtol=1e-6)
  np.testing.assert_array_equal(first.labels, test.labels)
  cache.save()

  again = FeatureCache(Fake(), tmp_path, 'digits')
  np.testing.assert_array_equal(again.features(test, 'test').x, first.x)
  assert again.features(train, 'train').computed == 13
  assert again.features(train, 'train').computed == 0

  others = [
    FeatureCache(Fake(2.0), tmp_path, 'digits'),
    FeatureCache(fake, tmp_path, 'cifar10'),
  ]
  assert len({cache.path, again.path}) == 1
  assert len({cache.path, *(other.path for other in others)}) == 3


def test_a_damaged_cache_says_so(tmp_path):
  cache = FeatureCache(Fake(), tmp_path, 'digits')
  cache.path.write_bytes(b'PK nothing')
  with pytest.raises(UserError, match='damaged: delete it'):
    FeatureCache(Fake(), tmp_path, 'digits')


def test_pictures_without_labels_are_refused(tmp_path):
  examples = [{'image': np.zeros((2, 2, 3), np.uint8), 'label': -1, 'id': 'a.png'}]
  with pytest.raises(UserError, match=r'a\.png has no label'):
    FeatureCache(Fake(), tmp_path, 'x').features(examples, 'test')


@pytest.mark.parametrize('name', ['deit_ti16_distilled', 'resnet50'])
def test_model_with_the_head_gives_the_probes_logits(name):
  module = small.build(name)
  loaded = Loaded(module, small.variables(module), {'model': {'name': name}}, (), PREPROCESS)
  images = np.random.default_rng(3).integers(0, 256, (5, 11, 13, 3), np.uint8)
  x = loaded.features(images)
  rng = np.random.default_rng(5)
  head = probe.Head(rng.standard_normal((x.shape[1], 3)), np.array([1.0, 2.0, 3.0]), 1.0)
  new, variables = probe.with_head(loaded, head)
  assert new.num_classes == 3
  logits = Loaded(new, variables, loaded.config, (), PREPROCESS).logits(images)
  np.testing.assert_allclose(logits, head(x), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
  """A folder of noisy colours without splits, seven pictures a class."""
  root = tmp_path_factory.mktemp('colours')
  rng = np.random.default_rng(0)
  for name, colour in COLOURS.items():
    (root / name).mkdir()
    for i in range(7):
      pixels = np.clip(rng.normal(colour, 20, (13, 17, 3)), 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(root / name / f'{i}.png')
  return root


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  module = small.build('vit_ti16')
  path = tmp_path_factory.mktemp('weights') / 'w.safetensors'
  convert.write(
    path,
    small.variables(module),
    module,
    'vit_jax',
    preprocess=PREPROCESS,
    model=convert.description(module, 'vit_ti16'),
  )
  return path


def run(capsys, weights, pictures, folder, *words):
  arguments = [str(weights), f'--dataset={pictures}', f'--cache_dir={folder}', '--json', *words]
  assert command.main(arguments) == 0
  return json.loads(capsys.readouterr().out)


def test_command_writes_a_model_that_evaluate_and_predict_take(tmp_path, capsys, weights, pictures):
  out = tmp_path / 'probe.safetensors'
  words = ('--split_fractions=0.6,0,0.4', f'--out={out}')
  first = run(capsys, weights, pictures, tmp_path, *words)
  assert (first['accuracy'], first['examples'], first['computed']) == (1.0, 9, 21)
  again = run(capsys, weights, pictures, tmp_path, *words)
  assert again['computed'] == 0
  assert (again['loss'], again['c']) == (first['loss'], first['c'])

  assert evaluate.main([str(out), '--json']) == 0  # the same split without saying so
  scored = json.loads(capsys.readouterr().out)
  assert (scored['accuracy'], scored['examples']) == (1.0, 9)
  assert scored['loss'] == pytest.approx(first['loss'], rel=1e-3)
  loaded = vit_jax.load(out)
  assert loaded.classes == ('green', 'red', 'violet')
  assert loaded.preprocess == PREPROCESS
  assert loaded.predict(pictures / 'red' / '3.png', 1)[0][0].name == 'red'


def test_command_names_an_unreadable_picture_or_leaves_it_out(tmp_path, capsys, weights, pictures):
  for name in COLOURS:
    (tmp_path / 'p' / name).mkdir(parents=True)
    for i in range(3):
      source = pictures / name / f'{i}.png'
      (tmp_path / 'p' / name / f'{i}.png').write_bytes(source.read_bytes())
  (tmp_path / 'p/red/broken.png').write_bytes(b'\x89PNG nothing')
  words = ('--train=train', '--test=train', '--split_fractions=1,0,0', '--c=1')
  with pytest.raises(UserError, match='red/broken.png: .*--on_error=skip'):
    run(capsys, weights, tmp_path / 'p', tmp_path, *words)
  result = run(capsys, weights, tmp_path / 'p', tmp_path, *words, '--on_error=skip')
  assert (result['skipped'], result['examples'], result['computed']) == (1, 9, 9)


def test_few_shots_compute_only_what_is_drawn(tmp_path, capsys, weights, pictures):
  words = ('--split_fractions=0.6,0,0.4', '--method=fewshot', '--shots=1,2', '--draws=1')
  first = run(capsys, weights, pictures, tmp_path, *words)
  assert (first['trained_on'], first['examples'], first['computed']) == (6, 9, 15)
  assert first['scores'].keys() == {'fewshot_1', 'fewshot_2'}
  assert first['scores']['fewshot_2'] == {'accuracy': 1.0, 'std': 0.0}  # colours are easy
  again = run(capsys, weights, pictures, tmp_path, *words)
  assert again['computed'] == 0 and again['scores'] == first['scores']
  text = command.main([str(weights), f'--dataset={pictures}', f'--cache_dir={tmp_path}', *words])
  assert text == 0 and 'fewshot_2  1.0000' in capsys.readouterr().out


def test_neighbours_vote(tmp_path, capsys, weights, pictures):
  words = ('--split_fractions=0.6,0,0.4', '--method=knn', '--neighbours=1,5')
  result = run(capsys, weights, pictures, tmp_path, *words)
  assert result['scores'] == {'knn_1': {'accuracy': 1.0}, 'knn_5': {'accuracy': 1.0}}
  with pytest.raises(UserError, match='--neighbours=13, but there are only 12'):
    run(capsys, weights, pictures, tmp_path, *words[:2], '--neighbours=13')
  with pytest.raises(UserError, match='5 shots need 5 .* has 4'):
    run(capsys, weights, pictures, tmp_path, words[0], '--method=fewshot', '--shots=5')


@pytest.mark.parametrize(
  'words, text',
  [
    (['--method=knn', '--out=probe.safetensors'], '--out needs --method=linear'),
    (['--shots=1,0'], '--shots takes positive numbers such as 1,5,10,25'),
    (['--l2=much'], '--l2 takes positive numbers'),
    (['--temperature=0'], '--temperature must be positive'),
    (['--out=probe.npz'], 'must end in .safetensors'),
    (['--out=no/such/probe.safetensors'], 'no folder no/such'),
    (['--c=0'], '--c must be positive'),
    (['--split_fractions=most'], 'takes shares such as'),
    (['--split_fractions=1,0,0'], 'neither a test nor a val split'),
    (['--classes=red,geen'], "did you mean 'green'"),
    (['--test=tset'], 'tset'),
  ],
)
def test_mistakes(words, text, pictures):
  with pytest.raises(UserError, match=text):
    command.main(['absent.npz', f'--dataset={pictures}', *words])


@pytest.mark.parametrize(
  'splits, wanted',
  [
    ({'train': 5, 'val': 5, 'test': 5}, ('val', 'test')),
    ({'train': 5, 'val': 5}, ('', 'val')),  # what is scored must not choose
    ({'train': 5, 'test': 5}, ('', 'test')),
  ],
)
def test_which_splits_choose_and_score(splits, wanted):
  dataset = SimpleNamespace(name='p', has_split=splits.__contains__)
  assert command.choose_splits(None, None, dataset) == wanted
  assert command.choose_splits('', None, dataset)[0] == ''


def test_help_waits_for_neither_jax_nor_scikit_learn():
  code = (
    'import sys, vit_jax.probe as m\n'
    'assert not {"jax", "sklearn", "scipy"} & set(sys.modules)\n'
    'm.main(["--help"])\n'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.returncode == 0 and 'example' in done.stdout, done.stderr


@pytest.mark.parametrize(
  'name',
  [
    'cait_xxs24',
    't2t_vit_7',
    'mixer_s32',
    'bit_r50x1',
    'mobilenet_v2',
    'resnet50',
  ],
)
def test_every_family_can_be_probed(name, tmp_path, capsys, pictures):
  module = small.build(name)
  sized = Preprocess('decode|resize(32)')
  path = tmp_path / 'w.safetensors'
  rows = 32 // getattr(module, 'patch_size', (32, 32))[0]  # a Mixer's tokens are counted
  convert.write(
    path,
    small.variables(module, rows, rows),
    module,
    'vit_jax',
    preprocess=sized,
    model=convert.description(module, name),
  )
  words = ('--split_fractions=0.6,0,0.4',)
  found = run(capsys, path, pictures, tmp_path, *words, '--c=1')
  assert found['computed'] == 21 and found['train_accuracy'] > 1 / 3
  for method in ('fewshot', 'knn'):
    options = ('--shots=4', '--neighbours=3', f'--method={method}')
    found = run(capsys, path, pictures, tmp_path, *words, *options)
    assert (found['computed'], found['examples'], found['trained_on']) == (0, 9, 12)
    assert all(score['accuracy'] > 1 / 9 for score in found['scores'].values())
