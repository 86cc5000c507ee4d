"""Damaged annotation files give a valid dataset or an error that names a file; nothing else."""

import json
import re
import time

import numpy as np
import pytest

from tests.data.annotations import BOX, coco, size, table, text, thing, voc, xml, yolo
from vit_jax.data import open_dataset
from vit_jax.errors import UserError

SECONDS = 10  # of the processor, for one dataset
VALUES = (
  *('', ' ', '0', '-1', '7', '0.5', '1e999', '1e-320', 'nan', '-inf', 'NaN', '9' * 400, '1_0'),
  *('null', 'true', '[]', '{}', '""', '*a', '&a', '<<', '!!python/object:os.system', '%', '\x00'),
  *('../..', '/', 'C:\\', '\ud7ff', '\u2028', '"', "'", '<', '&amp;', '&#0;', ']]>', ',', '\ufeff'),
)
VALUES_OF_JSON = (
  *(None, True, False, 0, -1, 7, 0.5, 1e300, float('nan'), float('-inf'), 10**30, '', 'x', '1'),
  *([], {}, [[]], [1], [1, 2, 3, 4], {'id': 1}, '../a.png', 'a\x00', '\ud800', 'b.png', 2**63),
)


def voc_folder(root):
  named = f'<filename>a.png</filename>{size()}'
  voc(root, {'a': xml(thing(), thing('dog', (1, 1, 9, 9)), head=named), 'b': xml(thing())}, 'ab')
  (root / 'images').rename(root / 'JPEGImages')
  text(root / 'ImageSets' / 'Main' / 'trainval.txt', 'a 1\nb -1\n')
  text(root / 'ImageSets' / 'Main' / 'val.txt', 'b\n')


def voc_class_folder(root):
  voc(root, {'a': xml(thing()), 'b': xml(thing())}, ('cat/a', 'dog/b', 'dog/c'))


def yolo_folder(root):
  yolo(root, {'train/a': '0 0.25 0.5 0.25 0.5\n1 0.1 0.1 0.2 0.2\n', 'val/b': '1 0.5 0.5 1 1'})
  yaml = 'path: .\ntrain: train.txt\nval:\n- images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n'
  text(root / 'data.yaml', yaml)
  text(root / 'train.txt', './images/train/a.png\n')


def coco_folder(root):
  rows = [{}, {'category_id': 2, 'image_id': 1, 'iscrowd': 0}, {'bbox': [1, 1, 5, 5]}]
  rows += [{'bbox': [], 'segmentation': [[1, 1, 9, 1, 9, 9]]}]
  coco(root, table(rows, [{}, {}]), 'ab')


FOLDERS = {'voc': voc_folder, 'classes': voc_class_folder, 'yolo': yolo_folder, 'coco': coco_folder}


def mutated_json(data, rng):
  """Another value, key or length somewhere in a JSON value; bytes as they are if it is none."""
  try:
    whole = json.loads(data)
  except (ValueError, RecursionError):
    return data
  places = []
  pending = [whole]
  while pending:
    node = pending.pop()
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    places += [(node, key) for key in keys]
    pending += [node[key] for key in keys if isinstance(node[key], dict | list)]
  if not places:
    return data
  node, key = places[rng.integers(len(places))]
  how = rng.integers(4)
  if how == 0:
    del node[key]
  elif how == 1 and isinstance(node, list):
    node.append(node[key])
  else:
    node[key] = VALUES_OF_JSON[rng.integers(len(VALUES_OF_JSON))]
  return json.dumps(whole).encode()


def mutated(data, rng):
  """A file's bytes with one mistake."""
  at = int(rng.integers(len(data) + 1))
  lines = data.splitlines(keepends=True) or [b'']
  row = int(rng.integers(len(lines)))
  tokens = re.split(rb'([\s<>/,:\[\]{}"]+)', data)
  token = int(rng.integers(len(tokens)))
  value = VALUES[rng.integers(len(VALUES))].encode()
  how = rng.integers(12)
  if how == 0:
    return data[:at] + bytes([rng.integers(256)]) + data[at + 1 :]
  if how == 1:
    return data[:at]
  if how == 2:
    return b''.join(lines[:row] + lines[row + 1 :])
  if how == 3:
    return b''.join([*lines[: row + 1], *lines[row:]])
  if how == 4:
    return b''.join(np.array(lines, object)[rng.permutation(len(lines))])
  if how in (5, 6):
    return b''.join([*tokens[:token], value, *tokens[token + 1 :]])
  if how == 7:
    other = int(rng.integers(len(tokens)))
    tokens[token], tokens[other] = tokens[other], tokens[token]
    return b''.join(tokens)
  if how == 8:
    encoding = ('utf-16', 'utf-8-sig', 'utf-16-le', 'utf-32')[rng.integers(4)]
    return data.decode('utf-8', 'replace').encode(encoding)
  if how == 9:
    opening = (b'[', b'{"a":', b'<a>', b'- ', b'a:\n ', b'&a [*a, ')[rng.integers(6)]
    return data[:at] + opening * int(rng.choice([1, 3000])) + data[at:]
  if how == 10:
    return re.sub(rb'\d+', lambda m: m[0] * int(rng.choice([1, 1, 1, 30])), data)
  return data[:at] + value + data[at:]


def assert_valid(dataset):
  """Every example has its image, labels of the classes, and a box within the image."""
  count = len(dataset.classes)
  for split in dataset.splits:
    examples = dataset.split(split)
    for i in range(len(examples)):
      example = examples[i]
      assert example['image'] and 0 <= example['label'] < count
      assert example['labels'].shape == (count,) and example['labels'][example['label']] == 1
      box = example['box']
      assert box.dtype == np.float32 and np.isfinite(box).all()
      if example['has_box']:
        low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
        assert low.min() > -1e-6 and high.max() < 1 + 1e-6 and box[2] * box[3] > 0, box


def outcome(root, kind, seed):
  """Makes a dataset with one to three mistakes in one of its files; reads it.

  Returns:
    'valid', or 'refused'.
  """
  rng = np.random.default_rng([list(FOLDERS).index(kind), seed])
  FOLDERS[kind](root)
  files = sorted(p for p in root.rglob('*') if p.is_file() and p.suffix != '.png')
  path = files[rng.integers(len(files))]
  data = path.read_bytes()
  for _ in range(rng.integers(1, 4)):
    change = mutated_json if path.suffix == '.json' and rng.integers(2) else mutated
    data = change(data, rng)
  path.write_bytes(data)
  started = time.process_time()
  try:
    dataset = open_dataset(str(root), split_fractions=(1, 0, 0))
  except UserError as e:
    assert str(root) in str(e) and '\n' not in str(e) and len(str(e)) < 2000, (data, str(e))
    result = 'refused'
  else:
    assert_valid(dataset)
    result = 'valid'
  assert time.process_time() - started < SECONDS, data[:500]
  return result


@pytest.mark.parametrize('kind', FOLDERS)
def test_without_mistakes(tmp_path, kind):
  FOLDERS[kind](tmp_path)
  dataset = open_dataset(str(tmp_path), split_fractions=(1, 0, 0))
  assert_valid(dataset)
  boxes = [e['box'] for split in dataset.splits for e in _all(dataset.split(split))]
  centre_and_sides = [(BOX[0] + BOX[2]) / 160, (BOX[1] + BOX[3]) / 80, 0.25, 0.5]
  assert sum(np.allclose(box, centre_and_sides) for box in boxes) >= 1


def _all(examples):
  return [examples[i] for i in range(len(examples))]


@pytest.mark.parametrize('kind', FOLDERS)
def test_mistakes(tmp_path, kind):
  found = {outcome(tmp_path / str(seed), kind, seed) for seed in range(10)}
  assert found <= {'valid', 'refused'}


@pytest.mark.slow
@pytest.mark.parametrize('kind', FOLDERS)
def test_many_mistakes(tmp_path, kind):
  found = [outcome(tmp_path / str(seed), kind, seed) for seed in range(10, 510)]
  assert set(found) == {'valid', 'refused'}
