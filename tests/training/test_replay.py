"""A step that is not finite: stopped, kept, and run again to find where it begins."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import raises
from tests.training.runs import command, options
from vit_jax import checkpoint, main, optimizers, tree
from vit_jax.errors import CheckpointError, DivergenceError
from vit_jax.tasks.losses import SoftmaxCrossEntropy
from vit_jax.training import divergence, loop, replay
from vit_jax.training.preparation import prepared
from vit_jax.training.starting import first_state

# Every step multiplies the weights by -10,000.
DIVERGING = {
  'total': '24 steps',
  'optimizer__name': 'sgd',
  'optimizer__learning_rate': '1e4',
  'optimizer__weight_decay': '1',
  'optimizer__clip_norm': '0',
  'schedule__name': 'constant',
  'schedule__warmup': '0 steps',
  'log__every': '8 steps',
  'dataset__val': '',
  'dataset__test': '',
}
# Black images stay zeros on their way to the model.
FROM_ZERO = {'input__mean': '0,0,0', 'input__std': '1,1,1', 'model__depth': '2'}


def test_the_step_that_diverged_is_kept_as_it_was(tmp_path):
  """The state is that of a checkpoint before it, the batch that of its position."""
  with raises(DivergenceError, '--replay') as caught:
    loop.train(options(**DIVERGING), str(tmp_path / 'run'))
  kept = divergence.read(tmp_path / 'run')
  assert kept.step % 8 and f'step {kept.step}: ' in str(caught.value)  # it was noticed later
  before = options(**DIVERGING | {'total': f'{kept.step - 1} steps'})
  loop.train(before, str(tmp_path / 'before'))
  saved = checkpoint.Saved.read(tmp_path / 'before' / 'checkpoints' / str(kept.step - 1))
  for name in ('variables', 'training'):
    found, expected = getattr(kept.saved, name), getattr(saved, name)
    assert found.keys() == expected.keys()
    assert all(found[key].tobytes() == expected[key].tobytes() for key in expected)
  with (
    prepared(before, tmp_path / 'before') as plan,
    loop.training_batches(before, plan.experiment) as batches,
  ):
    batches.set_state(saved.meta['data_state'])
    batch = next(batches)
  assert all(kept.batch[name].tobytes() == values.tobytes() for name, values in batch.items())


def test_the_command_says_where_it_begins(tmp_path, capsys):
  run = tmp_path / 'run'
  words = command(run, **DIVERGING)[3:]
  with raises(CheckpointError, run / 'diverged', 'no step'):
    main.main([*words, '--replay'])
  with pytest.raises(DivergenceError):
    main.main(words)
  before = {p: p.stat().st_mtime_ns for p in run.rglob('*')}
  capsys.readouterr()
  assert main.main([*words, '--replay', '--json']) == 0
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert found['event'] == 'replay' and found['step'] == divergence.read(run).step
  assert found['first']['stage'] in ('forward pass', 'gradient')
  assert {p: p.stat().st_mtime_ns for p in run.rglob('*')} == before
  # Another learning rate is another run, whose effect may be tried; it does not change this step.
  words = command(run, **DIVERGING | {'optimizer__learning_rate': '1'})[3:]
  assert main.main([*words, '--replay']) == 0
  captured = capsys.readouterr()
  assert found['first']['name'] in captured.out and found['first']['stage'] in captured.out
  assert 'config.optimizer.learning_rate' in captured.err


def _first(path, edit, **overrides):
  """Where a step begins not to be finite, from an initial state and batch that `edit` changes."""
  config = options(total='1 steps', **overrides)
  with prepared(config, path) as plan:
    state, _ = first_state(plan, config.ema.decay > 0)
    with loop.training_batches(config, plan.experiment) as batches:
      batch = next(batches)
    params = {name: np.array(x) for name, x in tree.flatten(state.params).items()}
    edit(params, batch)
    experiment = plan.experiment
    meta = {
      'config': config.to_json(),
      'model': experiment.model_record,
      'classes': list(experiment.dataset.classes),
      'preprocess': experiment.preprocess.to_json(),
    }
    state = state.replace(params=tree.unflatten(params))
    assert divergence.keep(path, state, batch, meta, 1.0)
    ids = [experiment.train.id(int(i)) for i in batch['index']]
  found = replay.replay(config, str(path))
  assert found.first is None or found.facts()['first']['stage'] == found.first.name
  assert len(found.lines()) <= len(found.stages) + 1
  return found.first, ids


@pytest.mark.parametrize(
  'overrides',
  [
    {},
    pytest.param(
      {'parallel': 'pmap', 'accumulate': '2', 'ema__decay': '0.9'}, marks=pytest.mark.slow
    ),
    pytest.param({'model__scan': 'true', 'model__remat': 'block'}, marks=pytest.mark.slow),
  ],
  ids=['data', 'pmap', 'scan'],
)
def test_the_module_and_the_image_are_named(tmp_path, overrides):
  """One image of sixteen is not black, and the kernel that sees it makes it overflow."""

  def edit(params, batch):
    batch['image'][:] = 0
    batch['image'][11] = 255
    params['patch_embedding/kernel'][:] = 3e38

  first, ids = _first(tmp_path, edit, **FROM_ZERO | overrides)
  assert first.name == 'forward pass' and first.unit == 'images'
  assert next(iter(first.bad.items())) == ('patch_embedding', 1)
  assert first.image == ids[11]


def test_the_first_of_many_modules_is_the_one_that_is_computed_first(tmp_path):
  def edit(params, batch):
    params['encoder/block_01/mlp/fc1/kernel'][:] = 3e38

  first, _ = _first(tmp_path, edit, **FROM_ZERO)
  assert first.name == 'forward pass'
  assert next(iter(first.bad.items())) == ('encoder/block_01/mlp/fc1', 16)
  assert 'encoder/block_00' not in first.bad and 'encoder/block_01' in first.bad


def test_what_was_not_finite_before_the_step_is_named(tmp_path):
  def edit(params, batch):
    params['encoder/block_00/mlp/fc2/bias'][3:5] = np.nan

  first, _ = _first(tmp_path, edit)
  assert (first.name, dict(first.bad)) == (
    'state before the step',
    {'params/encoder/block_00/mlp/fc2/bias': 2},
  )


def test_a_gradient_is_named_in_the_order_of_the_backward_pass(tmp_path, monkeypatch):
  """The root of nothing is nothing, and its slope is infinite."""
  plain = SoftmaxCrossEntropy.__call__

  def steep(self, logits, targets):
    nothing = (logits - jax.lax.stop_gradient(logits)).sum(axis=-1)
    return plain(self, logits, targets) + jnp.sqrt(nothing)

  monkeypatch.setattr(SoftmaxCrossEntropy, '__call__', steep)
  first, _ = _first(tmp_path, lambda params, batch: None)
  assert first.name == 'gradient'
  assert list(first.bad)[:2] == ['head/bias', 'head/kernel']
  assert list(first.bad)[-1].startswith('patch_embedding/')


def test_the_second_pass_of_sam_and_the_update_are_looked_at(tmp_path, monkeypatch):
  huge = {'optimizer__name': 'sgd', 'optimizer__multipliers': '.*=1e38'}
  monkeypatch.setattr('vit_jax.optimizers.parameter_groups._LARGEST_FACTOR', 1e39)
  first, _ = _first(tmp_path / 'huge', lambda params, batch: None, **huge)
  assert first.name in ('update', 'state after the step', 'norms of the step')
  monkeypatch.setattr(
    optimizers.Sharpness, 'ascend', lambda _, p, *more: jax.tree.map(lambda x: x + np.inf, p)
  )
  first, _ = _first(tmp_path / 'sam', lambda params, batch: None, optimizer__sam_rho='0.1')
  assert first.name == 'weights after the ascent of SAM'


@pytest.mark.parametrize('why', ['size', 'off', 'disk'])
def test_what_cannot_be_kept_is_said_and_leaves_nothing(tmp_path, monkeypatch, capsys, why):
  more = {'size': '1e-5', 'off': '0', 'disk': '8'}[why]
  if why == 'disk':
    usage = shutil.disk_usage(tmp_path)
    full = usage._replace(free=5_000)
    monkeypatch.setattr(
      shutil, 'disk_usage', lambda path: full if str(path).endswith('diverged') else usage
    )
  with pytest.raises(DivergenceError) as caught:
    loop.train(options(**DIVERGING, checkpoint__diverged_gib=more), str(tmp_path / 'run'))
  assert '--replay' not in str(caught.value)
  assert not (tmp_path / 'run' / 'diverged').exists()
  assert ('not kept' in capsys.readouterr().err) == (why != 'off')


def test_a_damaged_part_is_named(tmp_path):
  _first(tmp_path, lambda params, batch: None)
  (part,) = (tmp_path / 'diverged').glob('batch-*.npz')
  data = bytearray(part.read_bytes())
  data[len(data) // 2] ^= 255
  part.write_bytes(data)
  with raises(CheckpointError, part.name):
    divergence.read(tmp_path)
  part.unlink()
  with raises(CheckpointError, 'batch of step 1'):
    divergence.read(tmp_path)
