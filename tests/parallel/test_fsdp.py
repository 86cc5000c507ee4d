"""parallel=fsdp: what is divided along which axis, and every method of training with it."""

import functools
import json
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from tests.models import small
from tests.parallel import two_processes
from tests.support import raises
from tests.test_box_runs import make_yolo
from tests.test_box_runs import options as box_options
from tests.training import runs
from vit_jax import convert, data, parallel, rng, tasks
from vit_jax.errors import ConfigError
from vit_jax.parallel.sharding import Mesh, Rules, map_paths
from vit_jax.training import distillation, outline, summary
from vit_jax.training.loop import training_batches
from vit_jax.training.preparation import prepared
from vit_jax.training.starting import first_state
from vit_jax.training.train_state import create
from vit_jax.training.train_step import make_train_step

# Large enough that kernels are divided.
WIDER = {'model__width': '32', 'model__mlp_dim': '64', 'total': '8 steps', 'dataset__test': ''}


@pytest.mark.parametrize(
  'shape, axis',
  [
    ((64, 3, 4, 16), 0),
    ((64, 256), 1),
    ((256, 64), 0),
    ((64, 64), 0),  # of equal ones the first
    ((1021, 64), 1),  # a prime
    ((1021, 3, 7), None),
    ((1, 1, 1023), None),
    ((1024,), 0),
    ((1020,), None),  # small
    ((), None),
  ],
)
def test_the_largest_axis_that_divides_is_divided(shape, axis):
  assert Rules(Mesh(), 4).axis('params/x', shape) == axis


def test_rules_by_name_go_before_shapes():
  rules = Rules(Mesh(axes=('fc1/kernel=0', 'fc2=-1', '^params/head=none')), 4)
  assert rules.spec('params/b/fc1/kernel', (64, 256)) == P('fsdp')
  assert rules.spec('opt_state/0/mu/b/fc2/kernel', (256, 64)) == P(None, 'fsdp')
  assert rules.spec('params/head/kernel', (64, 64)) == P()
  assert rules.spec('ema/params/head/kernel', (64, 64)) == P('fsdp')
  assert rules.spec('opt_state/0/v_row/b/fc1/kernel', (1025,)) == P()  # as its shape bears
  x = {'fc1': {'kernel': jax.ShapeDtypeStruct((63, 256), np.float32)}}
  with raises(ConfigError, 'config.mesh.axes', 'fc1/kernel=0', '[63, 256]', 'fc2=-1'):
    rules.check(x)


@pytest.mark.parametrize(
  'sizes, devices, found',
  [((1, -1), 8, (1, 8)), ((-1, 4), 8, (2, 4)), ((2, 3), 6, (2, 3)), ((-1, 1), 7, (7, 1))],
)
def test_the_mesh_takes_what_is_left(sizes, devices, found):
  assert Mesh(*sizes).sizes(devices) == found


@pytest.mark.parametrize('sizes', [(3, -1), (-1, 5), (2, 2), (16, 1), (-1, -1), (0, 8), (1, 0)])
def test_a_mesh_of_another_number_of_devices_is_refused(sizes):
  named = [f'config.mesh.data={sizes[0]}', f'config.mesh.fsdp={sizes[1]}']
  with raises(ConfigError, *named):
    Mesh(*sizes).sizes(8)


def test_a_run_that_cannot_start_says_so(tmp_path):
  config = runs.options(parallel='fsdp', mesh__data='3', mesh__axes='fc9=0')
  with raises(ConfigError, 'config.mesh.data=3', ' 4', '2 x 2'), prepared(config, tmp_path):
    pass
  config = runs.options(parallel='fsdp', mesh__axes='fc9=0')
  with raises(ConfigError, 'config.mesh.axes', "'fc9=0'"), prepared(config, tmp_path):
    pass


def test_options_without_effect_are_warned_of(caplog):
  runs.options(mesh__data='2')
  assert 'config.mesh.data has no effect' in caplog.text and "'data'" in caplog.text


def _steps(config, path, count=5):
  """Losses and gradient norms of the first steps, the state after them, and where it lay."""
  with prepared(config, path) as plan:
    placement = plan.placement
    state, _ = first_state(plan, config.ema.decay > 0)
    made = jax.tree.map(lambda x: getattr(x, 'sharding', None), state)
    state = placement.put_state(state)
    step, key = placement.compile_train(plan.step), rng.stream(config.seed, 'dropout')
    teacher = distillation.start(config, plan.experiment, placement, plan.teacher)
    rows = []
    with training_batches(config, plan.experiment) as batches:
      for i in range(count):
        arrays = placement.put_batch({k: v for k, v in next(batches).items() if k != 'index'})
        if teacher:
          arrays['teacher'] = teacher(i, arrays, key)
        state, metrics = step(state, arrays, key)
        found = placement.get_metrics(metrics)
        rows.append([float(found[n].total) for n in ('loss', 'grad_norm')])
    return np.array(rows), state, made, placement


def _save_teacher(folder):
  module = small.build('vit_ti16', 10)
  convert.write(
    folder / 'teacher.safetensors',
    small.variables(module, 2, 2),
    module,
    'vit_jax',
    model=convert.description(module, 'vit_ti16'),
    classes=tuple(map(str, range(10))),
    preprocess=data.Preprocess('decode|resize(16)'),
  )
  return str(folder / 'teacher.safetensors')


METHODS = {
  'adafactor': {
    'optimizer__name': 'adafactor',
    'accumulate': '2',
    'ema__decay': '0.9',
    'model__depth': '2',
    'model__remat': 'block',
    'model__scan': 'true',
  },
  'lamb': {
    'optimizer__name': 'lamb',
    'optimizer__sam_rho': '0.05',
    'optimizer__gsam_alpha': '0.3',
    'optimizer__clip_norm': '1',
    'mixing__mixup': '0.8',
    'mixing__cutmix': '1.0',
    'mixing__per_pair': 'true',
    'task__name': 'distill',
  },
  'boxes': {
    'optimizer__name': 'sgd',
    'optimizer__state_dtype': 'bfloat16',
    'optimizer__layer_decay': '0.7',
    'freeze': 'blocks:1',
    'model__depth': '2',
    'model__width': '32',
    'model__mlp_dim': '64',
  },
}


@pytest.mark.parametrize('name', METHODS)
def test_every_method_equals_data_with_the_same_random_numbers(name, tmp_path):
  """Dropout and stochastic depth included; sums in another order differ by 1e-3 of a norm."""
  options, methods = runs.options, WIDER | METHODS[name]
  if 'task__name' in methods:
    methods |= {'task__teacher': _save_teacher(tmp_path)}
  if name == 'boxes':
    folder = make_yolo(tmp_path / 'images')

    def options(**overrides):
      return box_options(folder, **METHODS['boxes'] | overrides)

    methods = {}
  rows, _, _, whole = _steps(options(parallel='data', **methods), tmp_path / 'data')
  mesh = {'mesh__data': '2'} if name == 'lamb' else {}
  config = options(parallel='fsdp', **methods, **mesh)
  found, state, made, placement = _steps(config, tmp_path / 'fsdp')
  np.testing.assert_allclose(found, rows, rtol=1e-3)
  # It was made where it lies, and stays there.
  wanted = map_paths(placement._sharding, state)
  assert jax.tree.leaves(made) == jax.tree.leaves(wanted)
  assert jax.tree.leaves(jax.tree.map(lambda x: x.sharding, state)) == jax.tree.leaves(wanted)
  assert placement.bytes_of(state) < (0.7 if mesh else 0.5) * whole.bytes_of(state)


def test_weights_of_a_file_go_to_their_shards(tmp_path, monkeypatch):
  """No array that is divided ever lies on a device as a whole."""
  path = _save_teacher(tmp_path)
  largest = []
  put = parallel.FsdpPlacement.put_state

  def spy(self, tree):
    placed = put(self, tree)
    largest.extend(s.data.size for x in jax.tree.leaves(placed) for s in x.addressable_shards)
    return placed

  monkeypatch.setattr(parallel.FsdpPlacement, 'put_state', spy)
  config = runs.options(
    parallel='fsdp', init_from=path, model__depth='2', model__width='24', model__num_heads='3',
    model__mlp_dim='29', model__patch_size='8,8', model__pool='token',
    model__position_embedding='learned',
  )  # fmt: skip
  with prepared(config, tmp_path / 'run') as plan:
    state, report = first_state(plan, True)
  assert 'teacher' in report
  wanted = map_paths(plan.placement._sharding, state)
  assert jax.tree.leaves(jax.tree.map(lambda x: x.sharding, state)) == jax.tree.leaves(wanted)
  kernel = state.params['encoder']['block_00']['attention']['qkv']['kernel']
  assert kernel.size > 1024 and max(largest) < kernel.size
  ema = state.ema['params']['encoder']['block_00']['attention']['qkv']['kernel']
  places = [x.addressable_shards[0].data.unsafe_buffer_pointer() for x in (ema, kernel)]
  assert places[0] != places[1]
  np.testing.assert_array_equal(ema, kernel)


def test_the_plan_lists_large_arrays_that_stay_whole(tmp_path):
  config = runs.options(
    **WIDER | {'model__mlp_dim': '61', 'mesh__axes': 'qkv/kernel=none'}, parallel='fsdp'
  )
  with prepared(config, tmp_path / 'run') as plan:
    params = plan.experiment.shapes['params']
    optimization = plan.optimization
    state = jax.eval_shape(lambda v: create(v, optimization.tx), plan.experiment.shapes)
    parameters = summary.describe_parameters(params, optimization.factors, optimization.frozen)
    state = state.replace(step=0)
    event = outline.plan_event(config, plan, state, parameters, '', tmp_path)
  details, memory = event.details, event.facts['memory_bytes']
  whole = details.partition('stay whole on every device')[2].partition('\n\n')[0]
  assert 'params/encoder/block_00/attention/qkv/kernel  [32, 3, 2, 16], 12,288 bytes' in whole
  assert 'opt_state/1/mu/encoder' in whole and 'fc1/kernel' not in whole  # [32, 61]: 4 divides 32
  assert 'fsdp (mesh of 1 x 4)' in details
  whole_bytes = 4 * summary.count(params)
  assert whole_bytes / 4 < memory['parameters'] < 0.7 * whole_bytes
  assert 2 * memory['parameters'] < memory['optimizer'] < 1.5 * whole_bytes


def test_on_one_device_the_program_is_that_of_data():
  """Nothing is left of the constraints but the names of the mesh's axes."""
  module = small.build('vit_ti16')
  texts = []
  for name in ('data', 'fsdp'):
    placement = parallel.make(name, jax.devices()[:1])
    tx = optax.adamw(0.01)
    build = functools.partial(create, tx=tx)
    state = placement.put_state(placement.build(build, small.variables(module, 2, 2)))
    step = placement.compile_train(
      make_train_step(
        module,
        tasks.build('classify', small.CLASSES),
        tx,
        lambda step: 0.01,
        data.Preprocess('decode|resize(16)'),
        constrain=placement.constrain,
      )
    )
    batch = {'image': np.zeros((4, 16, 16, 3), np.uint8), 'label': np.zeros(4, np.int32)}
    lowered = step.lower(state, placement.put_batch(batch), rng.stream(0, 'dropout'))
    texts.append(re.sub(r'#sdy.sharding<[^>]*>|sdy.mesh.*|@\w+', '', lowered.as_text()))
  assert texts[0] == texts[1] and len(texts[0]) > 10_000


def test_two_processes_divide_the_state_between_them():
  """Each makes, holds and updates its own parts alone."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  words = [sys.executable, '-m', 'tests.parallel.two_processes']
  both = [
    subprocess.Popen([*words, str(i), str(port), 'fsdp'], stdout=subprocess.PIPE, text=True)
    for i in range(2)
  ]
  alone = two_processes.losses(parallel.make('data', jax.devices()[:1]), slice(None))
  for process in both:
    found = json.loads(process.communicate(timeout=300)[0].splitlines()[-1])
    assert found['processes'] == 2
    assert found['found'] == pytest.approx(alone, rel=1e-5)
