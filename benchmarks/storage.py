"""Times training batches from a folder, tar files and ArrayRecord: alternating rounds, medians.

  python benchmarks/storage.py --images=FOLDER [--count=10000] [--cold]

The same JPEGs, repeated to `count`, in a file each, in tar files of a thousand, and in TFDS's
files. Batches of 64 at 224 pixels, `decode|inception_crop|flip_lr`, one thread a core; beside them
the same transform of bytes in memory. With --cold every file leaves the system's cache before each
turn (Linux), and what is timed includes the disk.
"""

import argparse
import concurrent.futures
import functools
import itertools
import json
import os
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from vit_jax.data import open_dataset, parse_transform, train_batches
from vit_jax.data.loader import example_rng

SIZE, BATCH, SHARD, CLASSES = (224, 224), 64, 1000, 10
SPEC = 'decode|inception_crop|flip_lr'


def main() -> None:
  """Prints images/s of each storage and its part of the transform's own rate."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--images', required=True, help='folder of JPEGs')
  parser.add_argument('--count', type=int, default=10_000, help='images in each storage')
  parser.add_argument('--batches', type=int, default=20, help='a turn')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--cold', action='store_true', help='nothing in the cache of the system')
  args = parser.parse_args()
  files = sorted(pathlib.Path(args.images).rglob('*.jp*g'))
  contents = [data for f in files if (data := f.read_bytes())[:2] == b'\xff\xd8']
  threads = os.cpu_count() or 1
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    os.environ['VIT_JAX_CACHE'] = str(root / 'cache')
    jobs = {'in memory': functools.partial(_transformed, contents, args.batches, threads)}
    names = {
      'folder': _folder(root / 'folder', contents, args.count),
      'tar': _tar(root / 'tar', contents, args.count),
      'ArrayRecord': _array_record(root / 'tfds', contents, args.count),
    }
    for number, (storage, name) in enumerate(names.items()):
      jobs[storage] = functools.partial(_batches, name, args.batches, threads, number)
    rates: dict[str, list[float]] = {job: [] for job in jobs}
    for _ in range(args.rounds):
      for job, function in jobs.items():
        if args.cold:
          _forget(root)
        rates[job].append(args.batches * BATCH / function())
  mean = np.mean([len(data) for data in contents])
  print(f'{args.count:,} images of {mean / 1000:.0f} kB on average, {threads} threads')
  own = statistics.median(rates['in memory'])
  for job, found in rates.items():
    rate = statistics.median(found)
    print(f'{job:12} {rate:6.0f} images/s, {rate / own:.2f} of memory ({min(found):.0f} at least)')


def _transformed(contents: Sequence[bytes], batches: int, threads: int) -> float:
  """Seconds that the transform takes of bytes in memory."""
  transform = parse_transform(SPEC, SIZE, train=True)

  def part(rows: range) -> None:
    for row in rows:
      transform({'image': contents[row % len(contents)], 'id': ''}, example_rng(0, row))

  parts = [range(first, batches * BATCH, threads) for first in range(threads)]
  began = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    list(pool.map(part, parts))
  return time.perf_counter() - began


_turns: Callable[[], int] = itertools.count().__next__


def _batches(name: str, batches: int, threads: int, seed: int) -> float:
  """Seconds of training batches, after the first one; each call's are in another order."""
  examples = open_dataset(name, split_fractions=(1, 0, 0)).split('train')
  transform = parse_transform(SPEC, SIZE, train=True)
  options = {'batch_size': BATCH, 'seed': 100 * _turns() + seed, 'threads': threads}
  with train_batches(examples, transform, **options) as found:
    next(found)
    began = time.perf_counter()
    for _ in range(batches):
      next(found)
    return time.perf_counter() - began


def _forget(root: pathlib.Path) -> None:
  """Takes all files from the cache of the system, those that are written to disk."""
  os.sync()
  for path in root.rglob('*'):
    if path.is_file():
      with open(path, 'rb') as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _folder(root: pathlib.Path, contents: Sequence[bytes], count: int) -> str:
  for k in range(CLASSES):
    (root / str(k)).mkdir(parents=True)
  for i in range(count):
    (root / str(i % CLASSES) / f'{i:07}.jpg').write_bytes(contents[i % len(contents)])
  return str(root)


def _tar(root: pathlib.Path, contents: Sequence[bytes], count: int) -> str:
  import io

  root.mkdir()
  for first in range(0, count, SHARD):
    with tarfile.open(root / f'train-{first // SHARD:04}.tar', 'w') as tar:
      for i in range(first, min(count, first + SHARD)):
        label = str(i % CLASSES).encode()
        for ending, data in (('jpg', contents[i % len(contents)]), ('cls', label)):
          member = tarfile.TarInfo(f'{i:07}.{ending}')
          member.size = len(data)
          tar.addfile(member, io.BytesIO(data))
  return str(root)


def _array_record(root: pathlib.Path, contents: Sequence[bytes], count: int) -> str:
  import tensorflow_datasets as tfds
  from array_record.python.array_record_module import ArrayRecordWriter
  from tensorflow_datasets.proto import tf_example_pb2

  version = root / 'photos' / '1.0.0'
  version.mkdir(parents=True)
  shards = -(-count // SHARD)
  for shard in range(shards):
    file = f'photos-train.array_record-{shard:05}-of-{shards:05}'
    writer = ArrayRecordWriter(str(version / file), 'group_size:1')
    for i in range(shard * SHARD, min(count, (shard + 1) * SHARD)):
      example = tf_example_pb2.Example()
      example.features.feature['image'].bytes_list.value.append(contents[i % len(contents)])
      example.features.feature['label'].int64_list.value.append(i % CLASSES)
      writer.write(example.SerializeToString())
    writer.close()
  image = tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg')
  label = tfds.features.ClassLabel(num_classes=CLASSES)
  features = tfds.features.FeaturesDict({'image': image, 'label': label})
  (version / 'features.json').write_text(json.dumps(features.to_json()))
  lengths = [str(min(SHARD, count - first)) for first in range(0, count, SHARD)]
  about = {
    'name': 'photos',
    'version': '1.0.0',
    'fileFormat': 'array_record',
    'supervisedKeys': {'tuple': {'items': [{'featureKey': 'image'}, {'featureKey': 'label'}]}},
    'splits': [
      {
        'name': 'train',
        'shardLengths': lengths,
        'numBytes': '1',
        'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
      }
    ],
  }
  (version / 'dataset_info.json').write_text(json.dumps(about))
  return str(version)


if __name__ == '__main__':
  main()
