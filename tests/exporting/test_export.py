"""What is exported computes what the model does, and its script and README's lines do too."""

import ast
import json
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import vit_jax
from tests.inference import test_loaded
from tests.models import small
from tests.support import SHARED, needs_shared, raises
from vit_jax import export, exporting, predict
from vit_jax.data import Preprocess, parse_transform
from vit_jax.errors import ConfigError, DependencyError, StorageError, WeightsError
from vit_jax.exporting import recipe
from vit_jax.exporting.base import EXPORTS, ExportFormat, Settings
from vit_jax.exporting.opened import Exported, is_export
from vit_jax.exporting.write import export as write
from vit_jax.inference.answers import to_json
from vit_jax.inference.loaded import Loaded
from vit_jax.models.heads import ClassAndBox

CPU = Settings(('cpu',))


def _photo(path, seed=0, orientation=1):
  """A photo of 61 x 47 pixels that is stored turned."""
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(test_loaded.pixels(47, 61, seed)).save(path, exif=exif, quality=90)
  return path


def _of_boxes(transform):
  module = ClassAndBox(small.build('vit_ti16', 0, depth=1), small.CLASSES, hidden=7)
  config = {'model': {'name': 'vit_ti16'}, 'task': {'name': 'boxes', 'head_hidden': 7}}
  classes = ['ant', 'bee', 'cat', 'dog', 'eel']
  preprocess = Preprocess(transform, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 'bgr')
  variables = {'params': small.variables(module, 1, 1)['params']}
  return Loaded(module, variables, config, classes, preprocess, batch_size=3)


def _run(folder, words, monkeypatch, capsys):
  """Runs predict.py: (what it defines, its status, what it prints, what it says went wrong)."""
  code = (folder / 'predict.py').read_text('utf-8')
  roots = {
    name.split('.')[0]
    for node in ast.walk(ast.parse(code))
    if isinstance(node, ast.Import | ast.ImportFrom)
    for name in ([node.module] if isinstance(node, ast.ImportFrom) else [node.names[0].name])
  }
  assert roots == {'argparse', 'json', 'pathlib', 'sys', 'jax', 'numpy', 'PIL'}
  assert max(map(len, code.splitlines())) <= 100
  monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, words)])
  space = runpy.run_path(str(folder / 'predict.py'))
  try:
    status = space['main']()
  except SystemExit as e:
    status = e.code
  return space, status, *capsys.readouterr()


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """A classifier's export, its model, and photos."""
  base = tmp_path_factory.mktemp('export')
  loaded = test_loaded.make()
  write(loaded, base / 'out', settings=CPU)
  photos = [_photo(base / f'{i}.jpg', i, orientation) for i, orientation in enumerate((1, 6, 3))]
  return base / 'out', loaded, photos


def test_the_script_predicts_the_same(exported, monkeypatch, capsys):
  folder, loaded, photos = exported
  space, status, out, _ = _run(folder, photos, monkeypatch, capsys)
  run, _ = space['load']()
  found = run(np.stack([space['read'](path) for path in photos]))
  np.testing.assert_allclose(found['logits'], loaded.logits(photos), atol=1e-4)
  tables = [predict._table(str(p), f) for p, f in zip(photos, loaded.predict(photos, 5))]
  got, wanted = (re.sub(r' *[\d.]+%', '%', text) for text in (out, '\n'.join(tables)))
  assert status == 0 and got.rstrip('\n') == wanted
  _, status, out, _ = _run(folder, [*photos[:2], '--json', '--top_k=2'], monkeypatch, capsys)
  lines = [json.loads(line) for line in out.splitlines()]
  for got, wanted in zip(lines, loaded.predict(photos[:2], 2), strict=True):
    expected = to_json(got['image'], wanted)
    for a, b in zip(got.pop('predictions'), expected.pop('predictions'), strict=True):
      assert a.pop('probability') == pytest.approx(b.pop('probability'), abs=1e-4) and a == b
    assert got == expected
  assert [line['image'] for line in lines] == list(map(str, photos[:2]))


def test_the_script_names_what_it_cannot_read(exported, tmp_path, monkeypatch, capsys):
  folder, _, photos = exported
  (tmp_path / 'text.jpg').write_text('no image')
  words = ['gone.jpg', photos[0], tmp_path, tmp_path / 'text.jpg']
  _, status, out, err = _run(folder, words, monkeypatch, capsys)
  assert status == 1 and out.startswith(str(photos[0])) and len(out.splitlines()) == 6
  first, *others = err.splitlines()
  assert first == 'error: gone.jpg: No such file or directory' and len(others) == 2
  assert all(str(path) in line for path, line in zip(words[2:], others))
  _, status, out, _ = _run(folder, ['--help'], monkeypatch, capsys)
  assert status == 0 and 'IMAGE' in out and '--top_k' in out and '5 classes' in out
  assert _run(folder, [], monkeypatch, capsys)[1] == 2
  assert _run(folder, [photos[0], '--top_k=0'], monkeypatch, capsys)[1] == 2
  alone = tmp_path / 'alone'
  alone.mkdir()
  (alone / 'predict.py').write_bytes((folder / 'predict.py').read_bytes())
  _, status, _, _ = _run(alone, [photos[0]], monkeypatch, capsys)
  assert 'model.stablehlo' in status


def test_the_readmes_lines_predict_the_same(exported, monkeypatch, capsys):
  folder, loaded, photos = exported
  code = re.search('```python\n(.*?)```', (folder / 'README.md').read_text('utf-8'), re.S)[1]
  monkeypatch.syspath_prepend(str(folder))
  monkeypatch.delitem(sys.modules, 'predict', raising=False)
  assert "'photo.jpg'" in code
  exec(code.replace("'photo.jpg'", repr(str(photos[1]))), {})
  monkeypatch.delitem(sys.modules, 'predict')
  assert capsys.readouterr().out.strip() == loaded.predict(photos[1])[0][0].name


def test_an_exported_folder_predicts_as_the_model_does(exported):
  folder, loaded, photos = exported
  assert is_export(folder) and not is_export(folder.parent)
  opened = Exported(folder, batch_size=2)
  expected = loaded.predict([*photos, 'gone.jpg'], top_k=2, on_error='return')
  for got, wanted in zip(opened.predict([*photos, 'gone.jpg'], 2, 'return')[:3], expected):
    assert [p.name for p in got] == [p.name for p in wanted]
    np.testing.assert_allclose(got[0].probability, wanted[0].probability, rtol=1e-4)
  with raises(ConfigError, 'pooled'):
    opened.features(photos)


def test_the_record_says_what_goes_in_and_comes_out(exported):
  folder, _, _ = exported
  record = json.loads((folder / 'export.json').read_text())
  assert sorted(p.name for p in folder.iterdir()) == [
    *('README.md', 'classes.json', 'export.json', 'model.stablehlo', 'predict.py')
  ]
  given = record['input']
  assert given['shape'] == ['b', 24, 24, 3] and given['dtype'] == 'uint8'
  assert given['layout'] == 'NHWC' and given['value_range'] == [0, 255]
  assert len(given['steps']) == 3 and '28 pixels, bilinear' in given['steps'][1]
  assert record['outputs']['probabilities']['shape'] == ['b', 5]
  assert set(record['sha256']) == {'model.stablehlo', 'classes.json'}
  assert record['verified']['largest_difference'] < 1e-4 * record['verified']['largest_logit']


def test_boxes_are_those_of_the_image(tmp_path, monkeypatch, capsys):
  """Through a margin and a crop, in calls of a fixed number of images."""
  loaded = _of_boxes('decode|pad_square|central_fraction(0.7)|resize(32, 32, bicubic)')
  write(loaded, tmp_path / 'out', settings=Settings(('cpu',), 3, 'float32'))
  photos = [_photo(tmp_path / f'{i}.jpg', i, 1 + i) for i in range(5)]
  space, status, out, _ = _run(tmp_path / 'out', photos, monkeypatch, capsys)
  expected = loaded.predict(photos, 5)
  assert status == 0
  run, _ = space['load']()
  found = run(np.stack([space['read'](path)[0] for path in photos]))  # two calls of three
  np.testing.assert_allclose(found['logits'], loaded.logits(photos), atol=1e-4)
  boxes = [line.split() for line in out.splitlines() if line.startswith('  box')]
  for words, predictions in zip(boxes, expected, strict=True):
    got = [float(words[i].strip('%,')) / 100 for i in (8, 10, 1, 3)]
    np.testing.assert_allclose(got, predictions[0].box, atol=6e-4)
  opened = Exported(tmp_path / 'out')
  for got, wanted in zip(opened.predict(photos), expected, strict=True):
    np.testing.assert_allclose(got[0].box, wanted[0].box, atol=1e-4)


def test_several_labels_have_sigmoids(tmp_path):
  loaded = test_loaded.make()
  loaded.config['task'] = {'name': 'multilabel'}
  write(loaded, tmp_path / 'out', settings=CPU)
  record = json.loads((tmp_path / 'out' / 'export.json').read_text())
  assert (
    record['activation'] == 'sigmoid' and 'sigmoid' in record['outputs']['probabilities']['meaning']
  )
  photo = test_loaded.pixels()
  got, wanted = (m.predict(photo)[0] for m in (Exported(tmp_path / 'out'), loaded))
  assert [p.index for p in got] == [p.index for p in wanted]
  np.testing.assert_allclose(
    [p.probability for p in got], [p.probability for p in wanted], rtol=1e-4
  )


@pytest.mark.parametrize(
  'transform',
  [
    'decode|resize(24)',
    'decode|resize_small(31, lanczos)|central_crop(24)',
    'decode|resize_long(24, bicubic)|pad_square|pad(2)|central_crop(24, 20)',
    'decode(1)|central_fraction(0.61)|resize(20, 24, nearest)',
  ],
)
@pytest.mark.parametrize('hw', [(47, 61), (61, 46), (9, 40)])
def test_the_steps_on_pillow_images_are_the_transform(transform, hw):
  preprocess = Preprocess(transform, channels='grey' if '(1)' in transform else 'rgb')
  pixels = test_loaded.pixels(*hw)
  space = {'image': Image.fromarray(pixels)}
  for step in recipe.steps(preprocess):
    lines = [*step.lines, *(['image = image.crop(edges)'] if step.cuts else [])]
    exec('\n'.join(['from PIL import Image, ImageOps', *lines]), space)
  got = np.asarray(space['image'])
  expected = Loaded(None, {}, {}, (), preprocess).read(pixels)
  np.testing.assert_array_equal(got.reshape(expected.shape), expected)


def test_a_transform_without_words_is_refused(monkeypatch, tmp_path):
  monkeypatch.delitem(recipe._STEPS, recipe.spatial.CentralCrop)
  with raises(WeightsError, 'central_crop'):
    write(test_loaded.make(), tmp_path / 'out', settings=CPU)
  assert not list(tmp_path.iterdir())


def test_a_wrong_program_is_not_left(monkeypatch, tmp_path):
  from vit_jax.exporting.formats import stablehlo

  other = test_loaded.make(seed=1)
  monkeypatch.setattr(stablehlo, 'program_of', lambda loaded: exporting.base.program_of(other))
  with raises(WeightsError, 'logits'):
    write(test_loaded.make(), tmp_path / 'out', settings=CPU)
  assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine').write_text('')
  with raises(StorageError, 'out'):
    write(test_loaded.make(), tmp_path / 'out', settings=CPU)
  with raises(ConfigError, '--out', 'out'):
    export.main(['model', f'--out={tmp_path / "out"}'])
  assert [p.name for p in tmp_path.rglob('*')] == ['out', 'mine']


def test_features_are_no_classes(tmp_path):
  loaded = test_loaded.make(classes=())
  with raises(WeightsError, 'classifier'):
    write(loaded, tmp_path / 'out', settings=CPU)


def test_a_changed_or_foreign_export_is_refused(exported, tmp_path):
  folder, _, _ = exported
  for path in folder.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'classes.json').write_text('["a"]')
  with raises(WeightsError, 'classes.json', 'SHA-256'):
    Exported(tmp_path)
  record = json.loads((folder / 'export.json').read_text())
  for name in ('model.stablehlo', 'classes.json'):
    (tmp_path / name).write_bytes((folder / name).read_bytes())
  data = b'no program'
  (tmp_path / 'model.stablehlo').write_bytes(data)
  record['sha256']['model.stablehlo'] = exporting.write.sha256(tmp_path / 'model.stablehlo')
  (tmp_path / 'export.json').write_text(json.dumps(record))
  with raises(DependencyError, 'model.stablehlo', record['versions']['jax']):
    Exported(tmp_path)
  (tmp_path / 'export.json').write_text('{}')
  with raises(WeightsError, 'export.json'):
    Exported(tmp_path)


def test_the_command_writes_and_says_so(tmp_path, capsys):
  model = str(test_loaded.make(tmp_path))
  out = tmp_path / 'out'
  assert export.main([model, f'--out={out}', '--platforms=cpu,tpu']) == 0
  text = capsys.readouterr().out
  assert str(out) in text and 'differ' in text
  assert json.loads((out / 'export.json').read_text())['platforms'] == ['cpu', 'tpu']
  with raises(ConfigError, '--platforms', 'cpu'):
    export.main([model, f'--out={tmp_path / "b"}', '--platforms=tpu'])


FAMILIES = [
  *('vit_ti16', 'r_ti16', 'r50_b16', 'mixer_s16', 'deit_ti16_distilled', 'deit3_s16'),
  *('cait_xxs24', 't2t_vit_7', 't2t_vit_t_14', 'resnet50', 'bit_r50x1', 'mobilenet_v2'),
]


def test_a_format_is_one_class(tmp_path, monkeypatch):
  """A made-up one, that knows the logits of the images that are compared."""

  class Constant(ExportFormat):
    def write(self, folder, loaded, settings):
      logits = loaded.logits(np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8))
      np.savez(folder / 'logits.npz', logits=logits)
      return ['logits.npz'], {'answers': 'always these'}

    def open(self, folder, record):
      assert record['answers'] == 'always these'
      found = dict(np.load(folder / 'logits.npz'))
      return lambda images: found

    def script(self):
      return ['pandas'], ['import pandas'], ['predict = pandas.something(folder)']

  loaded = test_loaded.make()
  loaded.preprocess = Preprocess('decode|resize(24)')
  loaded._transform = parse_transform('decode|resize(24)')
  monkeypatch.setitem(EXPORTS._entries, 'constant', Constant)
  written = write(loaded, tmp_path / 'out', 'constant')
  assert written.difference < 1e-4 and 'logits.npz' in [path.name for path in written.files]
  text = (tmp_path / 'out' / 'README.md').read_text()
  assert 'pip install pandas numpy pillow' in text
  assert 'predict = pandas.something(folder)' in (tmp_path / 'out' / 'predict.py').read_text()
  record = json.loads((tmp_path / 'out' / 'export.json').read_text())
  assert record['format'] == 'constant' and 'logits.npz' in record['sha256']


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'dtype'), [*((name, 'float32') for name in FAMILIES), ('vit_ti16', 'bfloat16')]
)
def test_every_family_is_exported(name, dtype, tmp_path):
  module = small.build(name, dtype=dtype)
  h, w = (3 * side for side in getattr(module, 'patch_size', (32, 32)))
  config = {'model': {'name': name}}
  preprocess = Preprocess(f'decode|resize({h}, {w})')
  variables = small.variables(module, 3, 3)
  variables = {k: v for k, v in variables.items() if k in ('params', 'batch_stats')}
  loaded = Loaded(module, variables, config, (), preprocess)
  written = write(loaded, tmp_path / 'out')
  assert written.largest > 0.01
  assert written.difference < (1e-4 if dtype == 'float32' else 0.05) * max(1, written.largest)


@needs_shared
@pytest.mark.slow
def test_trained_weights_in_a_process_of_their_own(tmp_path):
  """Only what the README names is imported; real photos get the model's probabilities."""
  weights = SHARED / 'weights' / 'Ti_16-imagenet2012-224.npz'
  photos = sorted((SHARED / 'pets3' / 'images').rglob('*.jpg'))[::75]
  loaded = vit_jax.load(weights)
  write(loaded, tmp_path / 'out', settings=CPU)
  code = (
    'import sys, numpy as np, predict\n'
    f'run, _ = predict.load()\nphotos = {[str(p) for p in photos]!r}\n'
    "np.save('logits.npy', run(np.stack([predict.read(p) for p in photos]))['logits'])\n"
    "assert not {'vit_jax', 'flax', 'optax', 'simplejpeg'} & set(sys.modules)\n"
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=tmp_path / 'out')
  np.testing.assert_allclose(
    np.load(tmp_path / 'out' / 'logits.npy'), loaded.logits(photos), atol=1e-4
  )
