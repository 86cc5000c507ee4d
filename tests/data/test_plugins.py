"""A user's file adds ops to the transform string and operations to the augmentation policies."""

import os
import subprocess
import sys

PLUGIN = '''
import numpy as np

from vit_jax.data.transforms import geometry
from vit_jax.data.transforms.base import Op, arg, register
from vit_jax.data.transforms.operations import operation


@register('paint')
class Paint(Op):
  """Sets every pixel.

  Args:
    value: of all channels.
  """

  value: int = arg('int', low=0, high=255)

  def __call__(self, example, rng):
    return {**example, 'image': np.full_like(example['image'], self.value)}


@operation('made_up', randaugment=lambda m: 10 * m)
def made_up(image, value):
  """Marks the images that it was drawn for."""
  return np.full_like(image, int(value))


@operation('made_up_shift', geometric=True, randaugment=lambda m: m, trivial_augment=lambda s: s)
def made_up_shift(example, value):
  """Moves everything out to the right or left."""
  return geometry.affine(example, [[1, 0, 5 * np.sign(value)], [0, 1, 0]])
'''

SCRIPT = """
import numpy as np
from absl import flags

from vit_jax import data
from vit_jax.data.transforms.policies import operations_of


def pixels(spec, workers):
  examples = data.open_dataset('digits').split('train')
  transform = data.parse_transform(spec, train=True)
  options = {'batch_size': 16, 'seed': 0, 'threads': 2, 'workers': workers}
  with data.train_batches(examples, transform, **options) as batches:
    return np.concatenate([next(batches)['image'] for _ in range(12)])


if __name__ == '__main__':
  names = [operation.name for operation in operations_of('randaugment')]
  assert names[13:] == ['translate_y', 'made_up', 'made_up_shift'], names
  names = [operation.name for operation in operations_of('trivial_augment')]
  assert names[13:] == ['translate_y', 'made_up_shift'], names
  assert len(operations_of('randaugment_increasing')) == 15
  paint, policy = 'decode|resize(4)|paint(7)', 'decode|resize(4)|randaugment(1, 7)'
  assert str(data.parse_transform(paint)) == paint
  assert (pixels(paint, workers=0) == 7).all() and (pixels(paint, workers=1) == 7).all()
  images = pixels(policy, workers=0)
  np.testing.assert_array_equal(pixels(policy, workers=1), images)
  for value in (70, 128):  # drawn for about 12 of 192 images each
    assert 2 <= (images == value).all((1, 2, 3)).sum() <= 30
  assert not flags.FLAGS.is_parsed()  # they are the program's
  print('done')
"""


def test_an_op_and_an_operation_of_a_users_file(tmp_path):
  (tmp_path / 'my_ops.py').write_text(PLUGIN)
  (tmp_path / 'script.py').write_text(SCRIPT)
  root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
  done = subprocess.run(
    [sys.executable, str(tmp_path / 'script.py')],
    env={**os.environ, 'VIT_JAX_PLUGINS': str(tmp_path / 'my_ops.py'), 'PYTHONPATH': root},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == 'done\n'
