"""Times reading JPEGs on one core beside tf.data: alternating rounds, medians, ratios.

  python benchmarks/input_against_peers.py --images=FOLDER --tensorflow_python=PYTHON_WITH_TF

Three transformations to 224 pixels: the whole image decoded; decoded and resized; a random part
of 5 to 100 % of the area (Inception's crop) decoded as far as needed, resized and mirrored by
chance. tf.data maps with one thread; 'antialias' is how Pillow and this package resize, without it
TensorFlow reads fewer pixels. Both processes are bound to one core and read from memory.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile

from vit_jax.benchmark.peer import Peer, alternate

ROOT = pathlib.Path(__file__).resolve().parents[1]

_DATA = """
import os, pathlib
files, core, count = words
os.sched_setaffinity(0, {core})
contents = [pathlib.Path(f).read_bytes() for f in files]
"""

_OURS = """
import numpy as np
from vit_jax import data
from vit_jax.data.decode import decode_image
rng = np.random.default_rng(0)
def run(spec):
  transform = data.parse_transform(spec, (224, 224), train=True)
  for i in range(count):
    transform({'image': contents[i % len(contents)], 'id': ''}, rng)
def decode():
  for i in range(count): decode_image(contents[i % len(contents)])
def resize(): run('decode|resize')
def crop(): run('decode|inception_crop|flip_lr')
"""

_TF = """
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import tensorflow as tf
iterators = {}
def run(name, function):
  if name not in iterators:
    dataset = tf.data.Dataset.from_tensor_slices(contents).repeat()
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    iterators[name] = iter(dataset.map(function).with_options(options))
  for _ in range(count): next(iterators[name])
def small(image, antialias):
  image = tf.image.resize(image, (224, 224), antialias=antialias)
  return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
def resized(antialias):
  return lambda x: small(tf.io.decode_jpeg(x, channels=3), antialias)
def cropped(antialias):
  def function(x):
    shape = tf.image.extract_jpeg_shape(x)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
      shape, tf.zeros((1, 0, 4)), area_range=(0.05, 1.0), aspect_ratio_range=(3 / 4, 4 / 3),
      min_object_covered=0.0, use_image_if_no_bounding_boxes=True)
    window = tf.stack([begin[0], begin[1], size[0], size[1]])
    image = small(tf.image.decode_and_crop_jpeg(x, window, channels=3), antialias)
    return tf.image.random_flip_left_right(image)
  return function
def decode(): run('decode', lambda x: tf.io.decode_jpeg(x, channels=3))
def resize(): run('resize', resized(True))
def crop(): run('crop', cropped(True))
def resize_plain(): run('resize_plain', resized(False))
def crop_plain(): run('crop_plain', cropped(False))
"""

_PARTS = ('decode', 'resize', 'crop')


def main() -> None:
  """Prints images/s on one core and our ratios."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--images', default='', help='folder of JPEGs; otherwise some are made')
  parser.add_argument('--tensorflow_python', required=True, help='a Python with TensorFlow')
  parser.add_argument('--count', type=int, default=300, help='images a round')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--core', type=int, default=0)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    if not args.images:
      from vit_jax.benchmark.measure import make_images

      make_images(pathlib.Path(folder), 50)
    found = [
      f
      for f in sorted(pathlib.Path(args.images or folder).rglob('*.jp*g'))
      if f.read_bytes()[:2] == b'\xff\xd8'
    ]  # some are other formats by another name
    words = [[str(f.resolve()) for f in found[:500]], args.core, args.count]
    ours = Peer('vit_jax', sys.executable, _DATA + _OURS, words, str(ROOT))
    theirs = Peer('tf.data', args.tensorflow_python, _DATA + _TF, words)
    if not (ours.lives and theirs.lives):
      raise SystemExit(1)
    jobs = [
      *((ours, part) for part in _PARTS),
      *((theirs, part) for part in (*_PARTS, 'resize_plain', 'crop_plain')),
    ]
    alternate(jobs, 1)  # to warm up
    seconds = alternate(jobs, args.rounds)
    ours.stop()
    theirs.stop()
  rates = {key: args.count / statistics.median(times) for key, times in seconds.items()}
  for (name, part), rate in rates.items():
    ratio = rates['vit_jax', part.removesuffix('_plain')] / rate
    print(f'{name:8} {part:12} {rate:7.0f} images/s, vit_jax is {ratio:.2f}x')
  for part in ('resize', 'crop'):
    share = rates['vit_jax', part] / rates['vit_jax', 'decode']
    print(f'vit_jax {part}: {share:.0%} of decoding alone')


if __name__ == '__main__':
  main()
