"""From options to a dataset, model, task and weights that fit together."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from tests.support import raises
from tests.training import runs
from vit_jax import convert, parallel, tree
from vit_jax.data.dataset import Dataset
from vit_jax.data.sources import preparation as preparation_of_datasets
from vit_jax.errors import (
  ConfigError,
  DatasetError,
  DependencyError,
  DownloadError,
  WeightsError,
)
from vit_jax.training import loop, preparation
from vit_jax.training.experiment import build_experiment
from vit_jax.training.optimization import make_optimization
from vit_jax.training.preparation import outer_problems
from vit_jax.weights import hub


def _flat(variables):
  return {name: np.asarray(x) for name, x in tree.flatten(variables).items()}


def test_fresh_variables_depend_on_the_seed_alone():
  first, again, other = (
    _flat(build_experiment(runs.options(seed=seed)).variables()[0]) for seed in ('3', '3', '4')
  )
  assert all(value.tobytes() == again[name].tobytes() for name, value in first.items())
  assert any(value.tobytes() != other[name].tobytes() for name, value in first.items())


@pytest.fixture
def optimized():
  """Programs are compiled as users' are, not as tests' are."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


def test_a_placement_draws_the_same_weights(optimized):
  run = build_experiment(runs.options())
  placement = parallel.make('data', jax.devices()[:1], parallel.Mesh())
  alone, placed = _flat(run.variables()[0]), _flat(run.variables(placement.build)[0])
  assert all(value.tobytes() == placed[name].tobytes() for name, value in alone.items())


def test_shapes_are_those_of_the_variables():
  run = build_experiment(runs.options(dataset__classes='3,5'))
  variables, report = run.variables()
  assert jax.tree.map(lambda x: x.shape, run.shapes) == jax.tree.map(np.shape, variables)
  assert report == '' and run.module.num_classes == 2


def test_a_split_of_the_usual_name_that_a_dataset_lacks_is_left_out(monkeypatch):
  monkeypatch.setattr(Dataset, 'has_split', lambda self, name: False)
  run = build_experiment(runs.options(dataset__val='val', dataset__test='test[:10%]'))
  assert {name: len(split) for name, split in run.held_out.items()} == {'test': 30}


def test_any_other_split_that_a_dataset_lacks_is_a_mistake():
  with raises(DatasetError, "'vall'", "'val'"):
    build_experiment(runs.options(dataset__val='vall'))


def test_held_out_images_that_are_trained_on_are_warned_of(caplog):
  build_experiment(runs.options(dataset__val='train[90%:]'))
  (warning,) = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
  for fact in ('130 of 130', "config.dataset.train='train'", "config.dataset.val='train[90%:]'"):
    assert fact in warning
  caplog.clear()
  build_experiment(runs.options(dataset__train='train[:90%]', dataset__val='train[90%:]'))
  assert not caplog.records


def folder(root, *classes):
  """A folder with ten images of each class."""
  for i, name in enumerate(classes):
    (root / name).mkdir(parents=True)
    for k in range(10):
      Image.new('RGB', (16, 16), (20 * k, 90 * i, 0)).save(root / name / f'{k}.png')
  return str(root)


def test_one_class_cannot_be_told_from_others(tmp_path):
  name = folder(tmp_path / 'images', 'cat')
  with raises(ConfigError, name, "'cat'", 'one class', 'CLASS/image.jpg'):
    build_experiment(runs.options(dataset__name=name))
  with raises(ConfigError, "'3'", 'one class'):
    build_experiment(runs.options(dataset__classes='3'))


def test_the_same_image_in_two_splits_is_warned_of(tmp_path, caplog):
  name = folder(tmp_path / 'images', 'cat', 'dog')
  build_experiment(runs.options(dataset__name=name))
  assert not caplog.records
  for k in range(10):
    shutil.copy(tmp_path / 'images' / 'cat' / f'{k}.png', tmp_path / 'images' / 'cat' / f'a{k}.png')
  build_experiment(runs.options(dataset__name=name))
  assert 'images are also images of training' in caplog.text and "'cat/" in caplog.text


def test_kept_outputs_without_names_are_in_the_order_of_numbers(tmp_path):
  name = folder(tmp_path / 'images', *map(str, range(12)))
  run = build_experiment(runs.options(dataset__name=name))
  variables, _ = run.variables()
  variables['params']['head']['bias'] = np.arange(12, dtype=np.float32)
  path = tmp_path / 'nameless.safetensors'
  convert.write(
    path,
    variables,
    run.module,
    'vit_jax',
    model=run.model_record,
    classes=(),
    preprocess=run.preprocess,
  )
  kept = build_experiment(runs.options(dataset__name=name, init_from=str(path), head='keep'))
  found = kept.variables()[0]['params']['head']['bias']
  assert found.tolist() == [int(name) for name in run.dataset.classes] != sorted(found)


@pytest.fixture
def downloads(tmp_path, monkeypatch):
  """Names that were to be downloaded, of a cache that is empty: all that begins fails."""
  asked = []

  def fail(name, *_, **__):
    asked.append(name)
    raise DownloadError(f'no network for {name}')

  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(hub, 'fetch', fail)
  monkeypatch.setattr(preparation_of_datasets, '_prepare', lambda dataset, *_: fail(dataset.name))
  return asked


@pytest.mark.parametrize(
  'overrides, kind, facts',
  [
    ({'dataset__name': './none', 'init_from': 'vit_ti16.augreg_i21k'}, DatasetError, ['none']),
    ({'dataset__test': 'tset', 'init_from': 'vit_ti16.augreg_i21k'}, DatasetError, ['tset']),
    ({'dataset__name': 'food101', 'init_from': 'vit_b16.i22k'}, ConfigError, ['vit_b16.i22k']),
    ({'dataset__name': 'food101', 'init_from': './none.npz'}, WeightsError, ['none.npz']),
    (
      {'dataset__name': 'food101', 'input__eval_transform': 'decode|x'},
      ConfigError,
      ["'x'"],
    ),
  ],
)
def test_nothing_is_downloaded_for_a_run_that_cannot_start(downloads, overrides, kind, facts):
  with raises(kind, *facts):
    build_experiment(runs.options(**overrides))
  assert downloads == []


def test_what_takes_no_download_is_opened_first(downloads):
  pytest.importorskip('tensorflow_datasets')
  with raises(DownloadError, 'food101'):
    build_experiment(runs.options(dataset__name='food101', init_from='vit_ti16.augreg_i21k'))
  assert downloads == ['food101']  # and after its failure no other


def test_what_is_wrong_elsewhere_is_no_reason_to_download(downloads, tmp_path, monkeypatch):
  options = runs.options(dataset__name='food101', init_from='vit_ti16.augreg_i21k')
  assert outer_problems(options, str(tmp_path / 'run')) == [] == downloads
  monkeypatch.setattr(preparation, 'check_installed', _missing)
  with raises(DependencyError, 'no tracker'), preparation.prepared(options, tmp_path / 'run'):
    pass
  assert downloads == []


def _missing(_):
  raise DependencyError('no tracker')


def test_the_fingerprint_is_of_the_images_of_each_split():
  first = build_experiment(runs.options()).fingerprint
  assert first == build_experiment(runs.options(seed='3')).fingerprint
  other = build_experiment(runs.options(dataset__train='train[:90%]')).fingerprint
  assert {role for role in first if first[role] != other[role]} == {'train'}


def test_all_that_a_config_names_wrongly_is_reported_at_once():
  with raises(DatasetError, "'trian'", "'tset'", 'absent.npz') as caught:
    build_experiment(
      runs.options(dataset__train='trian', dataset__test='tset[:5]', init_from='absent.npz')
    )
  assert len(caught.value.problems) == 3


def test_the_preprocessing_is_saved_with_the_evaluation_transform():
  run = build_experiment(runs.options(input__mean='0.1,0.2,0.3', input__std='0.5,0.5,0.5'))
  assert run.preprocess.transform == str(run.eval_transform)
  assert run.preprocess.mean == (0.1, 0.2, 0.3) and run.image_hw == (16, 16)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run on all ten digits, and its variables."""
  path = tmp_path_factory.mktemp('runs') / 'trained'
  loop.train(runs.options(total='2 steps', checkpoint__every='2 steps'), str(path))
  return str(path), _flat(build_experiment(runs.options(init_from=str(path))).weights.tensors)


def test_a_reset_head_starts_anew_on_the_backbone(trained):
  path, before = trained
  variables, report = build_experiment(runs.options(init_from=path)).variables()
  after = _flat(variables)
  kept = {name for name in before if after[name].tobytes() == before[name].tobytes()}
  assert set(before) - kept == {'params/head/kernel', 'params/head/bias'}
  assert 'head/kernel' in report


def test_a_kept_head_keeps_the_outputs_of_the_classes_by_name(trained):
  path, before = trained
  config = runs.options(init_from=path, head='keep', dataset__classes='7,2')
  after = _flat(build_experiment(config).variables()[0])
  for name in ('params/head/kernel', 'params/head/bias'):
    np.testing.assert_array_equal(after[name], before[name][..., [7, 2]])
  whole = _flat(build_experiment(runs.options(init_from=path, head='keep')).variables()[0])
  assert all(whole[name].tobytes() == before[name].tobytes() for name in before)


def test_a_kept_head_that_does_not_know_the_classes_is_refused(trained, tmp_path):
  from PIL import Image

  for name in ('0', 'eleven'):
    (tmp_path / name).mkdir()
    for i in range(10):
      Image.new('RGB', (16, 16), (i, 0, 0)).save(tmp_path / name / f'{i}.png')
  config = runs.options(init_from=trained[0], head='keep', dataset__name=str(tmp_path))
  with raises(ConfigError, "config.head='keep'", "'eleven'", "config.head='reset'"):
    build_experiment(config).variables()


@pytest.mark.parametrize(
  'overrides, facts',
  [
    ({'task__name': 'boxes'}, ["'boxes'", 'digits']),
    ({'task__name': 'multilabel'}, ["'multilabel'", 'digits']),
  ],
)
def test_a_task_that_the_dataset_cannot_serve_is_refused(overrides, facts):
  with raises(ConfigError, 'config.task.name', *facts):
    build_experiment(runs.options(**overrides))


def test_an_optimization_takes_every_option():
  config = runs.options(
    optimizer__name='sgd',
    optimizer__learning_rate='0.4',
    optimizer__layer_decay='0.5',
    optimizer__sam_rho='0.2',
    optimizer__sam_rho_end='0.5',
    optimizer__gsam_alpha='0.3',
    freeze='embeddings',
    schedule__name='constant',
    schedule__warmup='4 steps',
  )
  params = build_experiment(config).shapes['params']
  made = make_optimization(
    config.optimizer, config.schedule, config.freeze, params, 9, lambda length: int(length[0])
  )
  rates = [float(made.schedule(step)) for step in (0, 3, 8)]
  np.testing.assert_allclose(rates, [0.1, 0.4, 0.4], rtol=1e-6)
  assert made.factors['head/kernel'].rate == 1.0
  assert made.factors['encoder/block_00/mlp/fc1/bias'].rate == 0.5
  assert made.frozen == {name for name in made.factors if name.startswith('patch_embedding/')}
  assert made.sharpness.alpha == 0.3
  np.testing.assert_allclose(made.sharpness.rho(0), 0.2 * (0.5 + 0.5 / 4), rtol=1e-6)
  plain = runs.options()
  assert make_optimization(
    plain.optimizer, plain.schedule, (), params, 9, lambda length: 0
  ).sharpness is None  # fmt: skip


def test_a_run_that_cannot_start_downloads_no_dataset(tmp_path, monkeypatch):
  pytest.importorskip('tensorflow_datasets')
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  config = runs.options(dataset__name='stanford_dogs', dataset__data_dir=str(tmp_path))
  assert outer_problems(config, str(tmp_path / 'run')) == []
  assert list(tmp_path.iterdir()) == []


def test_pretrained_weights_of_another_model_are_refused_before_a_download(monkeypatch):
  def fetch(*_, **__):
    raise AssertionError('downloads')

  monkeypatch.setattr(hub, 'fetch', fetch)
  named = {'model__name': 'vit_ti16', 'init_from': 'vit_b16.i21k'}
  changes = {'model__width': '192', 'model__num_heads': '3', 'model__depth': '12'}
  facts = ['vit_b16.i21k', '--config.model.name=vit_b16', 'vit_ti16.augreg_i21k']
  with raises(ConfigError, *facts):
    build_experiment(runs.options(**named, **changes))
  other_name = {'model__name': 'deit_b16', 'init_from': 'vit_b16.i21k'}  # of the same blocks
  with pytest.raises(AssertionError, match='downloads'):
    build_experiment(runs.options(**other_name))
