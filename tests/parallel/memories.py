"""The plan's estimate of memory beside XLA's analysis of the compiled step, on 4 simulated devices.

Arguments: words MODEL:PLACEMENT:GROUPS:REMAT, such as vit:fsdp:2:block. Prints, as JSON, a line for
each; nothing is computed.
"""

import json
import os
import pathlib
import sys
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'

from tests.training.runs import named
from vit_jax import config, runtime
from vit_jax.training import memory
from vit_jax.training.preparation import prepared

CONFIG = 'from vit_jax import config\n\n\ndef get_config():\n  return config.default()\n'
# Model, pixels, images of all four devices, options of the model.
MODELS = {
  'small': ('vit_ti16', 16, 256, {'patch_size': '(4, 4)', 'depth': '2'}),
  'vit': ('vit_ti16', 224, 32, {'depth': '6'}),
  'hybrid': ('r_ti16', 160, 16, {}),
  'resnet': ('resnet50', 96, 16, {}),
}


def options(folder, model, parallel, groups, remat):
  """Checked options of a case."""
  name, size, images, fields = MODELS[model]
  transform = f'decode|resize({size})'
  given = {
    'model__name': name,
    'parallel': parallel,
    'mesh__data': groups,
    'batch_size': str(images),
    'total': '9 steps',
    'dataset__name': 'digits',
    'dataset__val': '',
    'dataset__test': '',
    'input__image_size': str(size),
    'input__train_transform': transform,
    'input__eval_transform': transform,
    'optimizer__name': 'adamw',
  }
  given |= {f'model__{field}': value for field, value in fields.items()}
  given |= {'model__remat': remat} if remat != 'none' else {}
  file = folder / 'config.py'
  file.write_text(CONFIG)
  return config.load(str(file), named(given))


def compare(word):
  """Bytes on a device, as the plan estimates them and by XLA's analysis."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    given = options(folder, *word.split(':'))
    with prepared(given, folder / 'run') as plan:
      estimate = memory.estimate(given, plan, memory.state_shapes(given, plan))
      return {'case': word, 'estimate': estimate, 'xla': memory.of_step(given, plan)}


if __name__ == '__main__':
  runtime.start()  # XLA's flags are those of a command
  for case in sys.argv[1:]:
    print(json.dumps(compare(case)), flush=True)
