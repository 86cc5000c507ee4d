"""What the data package must never bring along."""

import subprocess
import sys

CODE = """
import sys
from vit_jax import data
_ = data.open_dataset, data.parse_transform, data.train_batches, data.decode_image
assert not {'jax', 'grain', 'absl', 'sklearn', 'tensorflow_datasets'} & set(sys.modules), 'slow'
dataset = data.open_dataset('digits')
train = data.parse_transform('decode|inception_crop(7)|flip_lr', train=True)
with data.train_batches(dataset.split('train'), train, batch_size=11, seed=0, threads=2) as batches:
  next(batches)
for batch in data.eval_batches(dataset.split('val'), data.parse_transform('decode|resize(7)'),
                               batch_size=53):
  pass
try:
  data.open_dataset('no_such_set')
except Exception as e:
  print(e)
assert not {m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'torch')}, 'TensorFlow came'
if 'jax' in sys.modules:
  from jax._src import xla_bridge
  assert not xla_bridge._backends, 'an accelerator was initialised'
# Threads still load ahead here: leaving must be quiet.
batches = data.train_batches(dataset.split('train'), train, batch_size=11, seed=0, threads=2)
next(batches)
"""


def test_reading_images_starts_no_accelerator_and_no_tensorflow():
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', CODE], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stderr
  assert not done.stderr, done.stderr
  assert 'no_such_set' in done.stdout
