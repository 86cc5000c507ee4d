"""Evaluating saved models: which dataset and split, and matching classes."""

import numpy as np
import pytest
from PIL import Image

from tests.data import bombs
from tests.models import small
from tests.support import raises
from vit_jax import convert, files
from vit_jax.data import Preprocess, open_dataset
from vit_jax.data.trained_on import TrainedOn
from vit_jax.errors import ConfigError, DatasetError, ImageError, WeightsError
from vit_jax.evaluation.measure import measure
from vit_jax.evaluation.standalone import evaluate
from vit_jax.weights import hub

PREPROCESS = Preprocess('decode|resize(16)')


@pytest.fixture
def save(tmp_path):
  """Writes a small model; returns its path."""

  def write(classes=(), num_classes=None, trained_on=None, **record):
    module = small.build('vit_ti16', len(classes) if num_classes is None else num_classes)
    path = tmp_path / 'w.safetensors'
    convert.write(
      path,
      small.variables(module, 2, 2),
      module,
      'vit_jax',
      model=convert.description(module, 'vit_ti16'),
      classes=classes,
      preprocess=PREPROCESS,
      config=record,
      trained_on=trained_on,
    )
    return str(path)

  return write


def _images(folder, *classes):
  for i, name in enumerate(classes):
    (folder / name).mkdir(parents=True)
    Image.new('RGB', (16, 16), (60 * i, 0, 0)).save(folder / name / '0.png')
  return str(folder)


DIGITS = tuple(str(i) for i in range(10))


def test_the_dataset_of_the_run_is_the_default_whichever_version_recorded_it(save):
  path = save(DIGITS, dataset={'name': 'digits', 'per_class': 7, 'classes': [], 'gone': 3})
  found = evaluate(path, split='train[:50%]')
  assert (found.dataset, found.split, found.metrics['examples']) == ('digits', 'train[:50%]', 35)
  assert found.report is None and found.metrics['skipped'] == 0


def test_all_images_of_a_folder_without_splits_are_scored(save, tmp_path):
  folder = _images(tmp_path / 'images', 'ant', 'bee', 'cat')
  found = evaluate(save(('cat', 'ant', 'bee', 'dog')), dataset=folder)
  assert found.metrics['examples'] == 3
  assert set(found.split.split('+')) >= {'train'}


def test_without_a_dataset_one_must_be_given(save):
  with raises(ConfigError, 'w.safetensors', '--dataset'):
    evaluate(save(DIGITS))


def test_a_model_without_a_classifier_is_refused(save):
  with raises(WeightsError, 'w.safetensors'):
    evaluate(save(num_classes=0), dataset='digits')


def test_classes_without_names_must_be_as_many(save, tmp_path):
  folder = _images(tmp_path / 'images', 'ant', 'bee', 'cat')
  assert evaluate(save(num_classes=3), dataset=folder).metrics['examples'] == 3
  with raises(DatasetError, '5 classes', ' 3'):
    evaluate(save(num_classes=5), dataset=folder)


def test_folders_that_are_numbers_are_matched_by_number(save, tmp_path, caplog):
  folder = _images(tmp_path / 'images', *map(str, range(11)))
  assert evaluate(save(num_classes=11), dataset=folder).metrics['examples'] == 11
  assert all(fact in caplog.text for fact in ('by number', "'10' after '9'"))


def test_an_empty_class_folder_is_skipped_with_the_images_that_are(save, tmp_path, caplog):
  folder = _images(tmp_path / 'images', 'ant', 'bee')
  (tmp_path / 'images' / 'cat').mkdir()
  path = save(('ant', 'bee'))
  with raises(DatasetError, 'images/cat'):
    evaluate(path, dataset=folder)
  assert evaluate(path, dataset=folder, on_error='skip').metrics['examples'] == 2
  assert 'images/cat' in caplog.text


def test_bombs_are_named_in_one_line_or_excluded_by_the_policy(save, tmp_path):
  folder = _images(tmp_path / 'images', 'ant', 'bee')
  kinds = ('png_size', 'webp_canvas', 'tiff_size', 'jpeg_size')
  for kind in kinds:
    data = bombs.MAKERS[kind](np.random.default_rng(3))
    (tmp_path / 'images' / 'ant' / f'{kind}.png').write_bytes(data)
  path = save(('ant', 'bee'))
  with raises(ImageError, 'images/ant/'):
    evaluate(path, dataset=folder)
  found = evaluate(path, dataset=folder, on_error='skip').metrics
  assert (found['examples'], found['skipped']) == (2, len(kinds))


@pytest.mark.parametrize(
  'name, split, told', [('images', 'all', True), ('images', 'test', False), ('other', 'all', False)]
)
def test_images_that_the_run_was_trained_on_are_told(tmp_path, caplog, name, split, told):
  folder = tmp_path / 'images'
  for kind in ('ant', 'bee'):
    (folder / kind).mkdir(parents=True)
    for k in range(5):
      (folder / kind / f'{k}.png').write_text(f'{kind} {k}')
  dataset = open_dataset(str(folder))
  files.write_json(tmp_path / 'split.json', dataset.manifest())
  config = {'dataset': {'name': str(tmp_path / name)}}
  run = TrainedOn.of_run(tmp_path, config)
  run.warn(dataset.name, dataset.split(split), 'images', 'a hint')
  assert (f'{dataset.splits["train"]} of 10 images were trained on' in caplog.text) is told
  assert (str(tmp_path / 'split.json') in caplog.text) is told


def test_a_part_of_the_split_and_more_trainings_are_known_by_digests(tmp_path, caplog):
  for k in range(10):
    (tmp_path / 'images' / 'ant').mkdir(parents=True, exist_ok=True)
    (tmp_path / 'images' / 'ant' / f'{k}.png').write_text(f'{k}')
  name = str(tmp_path / 'images')
  dataset = open_dataset(name)  # 8 + 1 + 1
  files.write_json(tmp_path / 'split.json', dataset.manifest())
  run = TrainedOn.of_run(tmp_path, {'dataset': {'name': name, 'train': 'train[:50%]+val'}})
  [(recorded, digests)] = run.images().items()
  assert recorded == name and len(digests) == 8 * 5 and '.png' not in digests
  both = run.and_of(name, dataset.split('train[2:6]'))
  assert len(both[name]) == 8 * 7 and set(run.and_of('digits', dataset.split('test'))) == {
    name,
    'digits',
  }
  TrainedOn(tmp_path / 'w.safetensors', both).warn(name, dataset.split('all'), 'images', 'hint')
  assert '7 of 10 images were trained on, says ' in caplog.text and 'w.safetensors' in caplog.text
  caplog.clear()
  for damaged in ('{', '[]', '{"train": 3}', '{"train": [3]}'):
    caplog.clear()
    (tmp_path / 'split.json').write_text(damaged)
    assert run.images() == {} and 'damaged' in caplog.text
  assert TrainedOn.of_run(tmp_path / 'none', {'dataset': {'name': name}}).images() == {}


@pytest.mark.parametrize('to', ['vit_jax', 'npz', 'timm'])
def test_a_file_of_weights_tells_of_them_too_and_so_does_what_is_made_of_it(
  save, tmp_path, caplog, to
):
  folder = _images(tmp_path / 'images', 'ant', 'bee', 'cat')
  dataset = open_dataset(folder)
  trained = TrainedOn().and_of(folder, dataset.split('all'))
  path = save(('ant', 'bee', 'cat'), trained_on=trained)
  other = tmp_path / ('w.npz' if to == 'npz' else 'again.safetensors')
  convert.main([path, str(other), f'--to={to}'])
  evaluate(str(other), dataset=folder)
  assert f'3 of 3 images were trained on, says {other}' in caplog.text
  caplog.clear()
  evaluate(save(('ant', 'bee', 'cat')), dataset=folder)  # as files of older versions are
  assert 'trained on' not in caplog.text


def test_digests_that_cannot_be_right_are_damage(save, tmp_path):
  with raises(WeightsError, 'w.safetensors', 'trained_on'):
    evaluate(save(('ant', 'bee'), trained_on={'images': 'short'}), dataset='digits')


def test_trained_parameters_are_counted_where_the_options_still_hold():
  variables = small.variables(small.build('vit_ti16'))
  every = measure(variables, {'optimizer': {}})
  frozen = measure(variables, {'freeze': ['backbone']})
  assert every['trained_parameters'] == every['parameters'] == frozen['parameters']
  assert frozen['trained_parameters'] == 24 * small.CLASSES + small.CLASSES
  assert measure(variables, {})['trained_parameters'] is None
  # Version 0.1 took more blocks than there are for all of them.
  assert measure(variables, {'freeze': ['blocks:20']})['trained_parameters'] is None


def test_a_mistake_in_the_dataset_costs_no_download_of_the_model(tmp_path, monkeypatch):
  monkeypatch.setattr(hub, 'fetch', None)
  with raises(DatasetError, tmp_path / 'none'):
    evaluate('vit_b16.i21k', dataset=str(tmp_path / 'none'))
