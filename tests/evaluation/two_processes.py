"""One of two processes that score a split together; prints its result as JSON.

Arguments: number of this process, port, placement.
"""

import json
import sys

import jax
import numpy as np


class Examples:
  """17 images of the class that the first pixel tells, the last four labelled otherwise."""

  def __len__(self):
    return 17

  def id(self, i):
    return f'image {i}'

  def __getitem__(self, i):
    label = np.int32(i % 7 if i < 13 else (i + 1) % 7)
    return {'image': np.full((8, 8, 3), i % 7, np.uint8), 'label': label, 'id': self.id(i)}


def main(process: str, port: str, name: str) -> None:
  jax.config.update('jax_platforms', 'cpu')
  jax.distributed.initialize(f'127.0.0.1:{port}', num_processes=2, process_id=int(process))
  from tests.evaluation import test_scoring as fakes
  from vit_jax import data, parallel, processes, report, tasks
  from vit_jax.evaluation.evaluator import Evaluator, loader_options

  placement = parallel.make(name)
  evaluator = Evaluator(
    fakes._Oracle(),
    tasks.build('classify', fakes.CLASSES),
    fakes.PREPROCESS,
    placement,
    data.parse_transform('decode|resize(8)', train=False),
    batch_size=4,
    loading=loader_options(threads=1),
  )
  collector = report.Collector(Examples(), [str(i) for i in range(fakes.CLASSES)])
  result = evaluator(Examples(), placement.put_state({}), collector)
  kept = collector.predictions()
  result |= {'processes': processes.agreed(lambda: processes.count())}
  result |= {'told': processes.collected(processes.index()), 'index': kept.index.tolist()}
  print(json.dumps(result), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
