"""The pure step: placements agree, accumulation equals the whole batch, methods by hand."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax import data, models, optimizers, parallel, rng, tasks, tree
from vit_jax.config import Ema
from vit_jax.tasks.classify import Classify
from vit_jax.tasks.mixing import Mixing
from vit_jax.training import train_step
from vit_jax.training.train_state import create

CLASSES, SIZE, BATCH = 7, 8, 24
PREPROCESS = data.Preprocess('decode|resize(8)')


@functools.cache
def _module(dropout=0.0):
  return models.build(
    'vit_ti16',
    CLASSES,
    patch_size=(4, 4),
    width=24,
    depth=1,
    num_heads=3,
    mlp_dim=20,
    dropout=dropout,
  )


def _batch(seed=0, size=BATCH):
  r = np.random.default_rng(seed)
  return {
    'image': r.integers(0, 256, (size, SIZE, SIZE, 3), np.uint8),
    'label': r.integers(0, CLASSES, size).astype(np.int32),
  }


def _first_state(tx, dropout=0.0):
  variables = _module(dropout).init(jax.random.key(3), jnp.zeros((1, SIZE, SIZE, 3)), train=False)
  # A head of zeros would hide every gradient below it.
  head = jax.random.normal(jax.random.key(5), variables['params']['head']['kernel'].shape)
  variables['params']['head']['kernel'] = head
  return create(jax.tree.map(np.asarray, variables), tx)


def _train(name, devices, accumulate=1, dropout=0.0, steps=3):
  # Not Adam: the bias of the keys has no gradient but rounding, which Adam would make full steps.
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
  placement = parallel.make(name, jax.devices()[:devices])
  step = placement.compile_train(
    train_step.make_train_step(
      _module(dropout),
      tasks.build('classify', CLASSES),
      tx,
      lambda step: 0.01,
      PREPROCESS,
      accumulate=accumulate,
      axis_name=placement.axis_name,
    )
  )
  state = placement.put_state(_first_state(tx, dropout))
  for i in range(steps):
    state, metrics = step(state, placement.put_batch(_batch(i)), rng.stream(0, 'dropout'))
  return jax.device_get(placement.get_state(state)), placement.get_metrics(metrics)


def _assert_close(one, other, rtol=2e-4, atol=2e-5):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


@pytest.fixture(scope='module')
def one_device():
  return _train('data', 1)


@pytest.mark.parametrize(
  'name, devices, accumulate',
  [
    ('data', 4, 1),
    ('pmap', 4, 1),
    ('data', 1, 3),
    ('data', 4, 3),
    ('pmap', 4, 2),
  ],
)
def test_placements_and_accumulation_agree_with_one_device(one_device, name, devices, accumulate):
  """Three steps of SGD; sums in another order change a weight by 2e-4 of itself or by 2e-5."""
  state, metrics = _train(name, devices, accumulate)
  assert state.step == 3
  _assert_close(state.params, one_device[0].params)
  _assert_close(metrics, one_device[1])


@dataclasses.dataclass(frozen=True)
class _WithSome(Classify):
  """Logs the label of the examples whose label is odd."""

  def metrics(self, outputs, batch):
    label = batch['label'].astype(jnp.float32)
    return {'odd': (label, label % 2), **super().metrics(outputs, batch)}


@pytest.mark.parametrize('name, devices, accumulate', [('data', 4, 3), ('pmap', 4, 3)])
def test_metrics_of_some_examples_are_weighed_over_parts_and_devices(name, devices, accumulate):
  tx = optax.sgd(0.0)
  placement = parallel.make(name, jax.devices()[:devices])
  step = placement.compile_train(
    train_step.make_train_step(
      _module(),
      _WithSome(CLASSES),
      tx,
      lambda step: 0.25,
      PREPROCESS,
      accumulate=accumulate,
      axis_name=placement.axis_name,
    )
  )
  labels = np.array([1, 2, 3, 5, *[0] * 20], np.int32)  # all odd ones in the first parts
  batch = placement.put_batch({**_batch(), 'label': labels})
  _, metrics = step(placement.put_state(_first_state(tx)), batch, rng.stream(0, 'dropout'))
  found = placement.get_metrics(metrics)
  assert (found['odd'].total, found['odd'].weight) == (1 + 3 + 5, 3)
  assert found['loss'].weight == BATCH
  assert (found['learning_rate'].total, found['learning_rate'].weight) == (0.25, 1)


def test_frozen_parameters_stay_and_have_no_optimizer_state():
  tx = optax.sgd(0.1, momentum=0.9)
  first = _first_state(tx)
  frozen = frozenset({'patch_embedding/kernel', 'class_token'})
  step = jax.jit(
    train_step.make_train_step(
      _module(), tasks.build('classify', CLASSES), tx, lambda s: 0.1, PREPROCESS, frozen=frozen
    )
  )
  before = create(first.variables, tx, frozen)
  after, _ = step(before, _batch(), rng.stream(0, 'dropout'))
  moved = {
    name
    for name, value in tree.flatten(after.params).items()
    if not np.array_equal(value, tree.flatten(first.params)[name])
  }
  assert moved == set(tree.flatten(first.params)) - frozen
  assert len(jax.tree.leaves(before.opt_state)) == len(moved)


@pytest.mark.parametrize('bounded', [False, True])
def test_a_step_that_is_not_finite_changes_nothing_and_neither_do_later_ones(bounded):
  """An infinite learning rate; the request to stop of several processes is several numbers."""
  tx = optax.adam(1.0)
  first = _first_state(tx).replace(finite=jnp.array(True))
  step = jax.jit(
    train_step.make_train_step(
      _module(), tasks.build('classify', CLASSES), tx, lambda s: 0.1, PREPROCESS, bounded=bounded
    )
  )
  stops = np.zeros((BATCH, 3), np.float32)
  batch, key = {**_batch(), train_step.STOPS: stops}, rng.stream(0, 'dropout')

  def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)

  start = first.replace(rate_scale=jnp.float32(np.inf))
  stopped, metrics = step(start, batch, key)
  assert not np.isfinite(metrics['learning_rate'].total) and not stopped.finite
  assert same(stopped.replace(finite=start.finite), start)
  mended = stopped.replace(rate_scale=first.rate_scale)
  later, metrics = step(mended, batch, key)
  assert all(np.isfinite(metric.total).all() for metric in metrics.values())
  assert same(later, mended)
  moved, _ = step(first, batch, key)
  assert moved.finite and moved.step == 1 and not same(moved.params, first.params)


def test_statistics_that_are_not_finite_stop_a_step_whose_weights_are_bounded():
  class Overflowing(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
      largest = self.variable('batch_stats', 'largest', jnp.zeros, ())
      largest.value = jnp.float32(jnp.inf)
      return nn.Dense(CLASSES)(x.mean((1, 2)))

  tx, module = optax.adam(1.0), Overflowing()
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  variables['batch_stats'] = {'largest': jnp.float32(0)}
  state = create(variables, tx).replace(finite=jnp.array(True))
  step = train_step.make_train_step(
    module, tasks.build('classify', CLASSES), tx, lambda s: 0.1, PREPROCESS, bounded=True
  )
  stopped, metrics = jax.jit(step)(state, _batch(), rng.stream(0, 'dropout'))
  assert np.isfinite(metrics['loss'].total) and not stopped.finite
  jax.tree.map(np.testing.assert_array_equal, stopped.replace(finite=state.finite), state)


def test_weights_whose_norm_is_not_finite_before_a_step_stay():
  tx = optax.adam(1e-3)
  state = _first_state(tx).replace(finite=jnp.array(True))
  state.params['head']['bias'] = np.full(CLASSES, 1e19, np.float32)
  step = train_step.make_train_step(
    _module(), tasks.build('classify', CLASSES), tx, lambda s: 1e-3, PREPROCESS, bounded=True
  )
  stopped, metrics = jax.jit(step)(state, _batch(), rng.stream(0, 'dropout'))
  assert np.isfinite(metrics['loss'].total) and np.isinf(metrics['weights_norm'].total)
  jax.tree.map(np.testing.assert_array_equal, stopped.replace(finite=state.finite), state)


@pytest.mark.parametrize('frozen', [frozenset(), frozenset({'class_token'})])
def test_a_step_whose_weights_are_bounded_makes_the_same_update(frozen):
  tx = optax.sgd(1e-2, momentum=0.9)
  arguments = _module(), tasks.build('classify', CLASSES), tx, lambda s: 1e-2, PREPROCESS
  options = {'ema': Ema(0.5, warmup=False), 'frozen': frozen}
  found = []
  for bounded in (False, True):
    step = jax.jit(train_step.make_train_step(*arguments, bounded=bounded, **options))
    state = create(_first_state(tx).variables, tx, frozen, ema=True)
    for _ in range(3):
      state, metrics = step(state, _batch(), rng.stream(0, 'dropout'))
    found.append((state, metrics))
  assert found[1][0].step == 3 and found[1][0].finite
  for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(found[0]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_norm_sums_small_arrays_together():
  random = np.random.default_rng(0)
  sizes = [(4096,), (64, 64), (), (1,), (4097,), (65, 64)]
  arrays = {str(i): random.standard_normal(s).astype(np.float32) for i, s in enumerate(sizes)}
  exact = np.linalg.norm(np.concatenate([x.ravel() for x in arrays.values()]).astype(np.float64))
  np.testing.assert_allclose(train_step._joined_norm(arrays), exact, rtol=1e-6)
  jaxpr = jax.make_jaxpr(train_step._joined_norm)(arrays)
  assert [e.primitive.name for e in jaxpr.eqns].count('reduce_sum') == 3
  assert train_step._joined_norm({}) == 0
  assert np.isnan(train_step._joined_norm(arrays | {'2': np.float32(np.nan)}))


def test_sharding_draws_the_same_dropout_as_one_device():
  one, other = (_train('data', n, dropout=0.3) for n in (1, 4))
  _assert_close(one[0].params, other[0].params)


def test_pmap_devices_draw_different_dropout():
  tx = optax.sgd(0.0)
  step = jax.jit(
    train_step.make_train_step(
      _module(0.5), tasks.build('classify', CLASSES), tx, lambda s: 0.0, PREPROCESS
    )
  )

  def loss(index):
    key = jax.random.fold_in(rng.stream(0, 'dropout'), index)
    return float(step(_first_state(tx, 0.5), _batch(), key)[1]['loss'].total)

  assert loss(0) == loss(0) != loss(1)


def test_steps_differ_in_dropout_and_repeat_exactly():
  (first, a), (second, b) = (_train('data', 1, dropout=0.3) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
  assert a['loss'].total == b['loss'].total


class _Linear(nn.Module):
  """One weight for the first pixel's red value, so that gradients can be worked by hand."""

  @nn.compact
  def __call__(self, images, train=False):
    return self.param('w', nn.initializers.constant(2.0), ()) * images[:, :1, 0, 0]


class _Square:
  """The loss is the output squared: its slope is 2 w x^2."""

  def losses(self, outputs, batch):
    return outputs[:, 0] ** 2

  def metrics(self, outputs, batch):
    return {'loss': self.losses(outputs, batch)}


def _one_step(steps=1, state_ema=False, **options):
  """The state after steps of SGD at rate 0.1 on an image of value 1."""
  batch = {'image': np.full((1, 1, 1, 3), 255, np.uint8), 'label': np.zeros(1, np.int32)}
  tx = optax.sgd(0.1)
  step = jax.jit(
    train_step.make_train_step(
      _Linear(), _Square(), tx, lambda s: 0.1, data.Preprocess('decode|resize(1)'), **options
    )
  )
  state = create(_Linear().init(jax.random.key(0), jnp.zeros((1, 1, 1, 3))), tx, ema=state_ema)
  for _ in range(steps):
    state, _ = step(state, batch, rng.stream(0, 'dropout'))
  return state


def test_sam_descends_the_gradient_at_the_ascended_weight():
  """From w = 2 it ascends to 2 + 0.5, where the slope is 5."""
  sam = optimizers.Sharpness(lambda step: 0.5, 0.0)
  np.testing.assert_allclose(_one_step(sharpness=sam).params['w'], 2 - 0.1 * 5, rtol=1e-6)
  np.testing.assert_allclose(_one_step().params['w'], 2 - 0.1 * 4, rtol=1e-6)


def test_the_ema_follows_the_weights():
  """Slope 4 and 3.2 give weights 1.6 and 1.28; 0.75 of the EMA stays each step."""
  ema = Ema(decay=0.75, warmup=False)
  state = _one_step(2, True, ema=ema)
  first = 0.75 * 2 + 0.25 * 1.6
  np.testing.assert_allclose(state.ema['params']['w'], 0.75 * first + 0.25 * 1.28, rtol=1e-6)
  assert state.averaged is state.ema
  state = _one_step(1, True, ema=Ema(decay=0.75))  # warming up: 2 / 11 stay at first
  np.testing.assert_allclose(state.ema['params']['w'], 2 + 9 / 11 * (1.6 - 2), rtol=1e-6)
  assert _one_step(1, False, ema=ema).ema is None


@pytest.mark.parametrize('name, accumulate', [('data', 1), ('data', 3)])
def test_mixing_is_of_the_whole_batch_on_any_number_of_devices(name, accumulate):
  def run(devices, parts):
    tx = optax.sgd(0.1)
    placement = parallel.make(name, jax.devices()[:devices])
    step = placement.compile_train(
      train_step.make_train_step(
        _module(),
        tasks.build('classify', CLASSES),
        tx,
        lambda s: 0.1,
        PREPROCESS,
        accumulate=parts,
        axis_name=placement.axis_name,
        mixing=Mixing(0.8, 1.0, per_pair=True),
      )
    )
    state = placement.put_state(_first_state(tx))
    state, metrics = step(state, placement.put_batch(_batch()), rng.stream(0, 'dropout'))
    return placement.get_state(state).params, placement.get_metrics(metrics)

  _assert_close(run(1, 1), run(4, accumulate))


@pytest.mark.parametrize('seed', range(4))
def test_accuracy_of_mixed_images_is_of_the_class_with_the_larger_share(seed):
  """Mixup of two by two swaps which of them prevails; a model that tells it is right always."""
  task = tasks.build('classify', CLASSES, label_smoothing=0.1)
  batch = {**_batch(), 'label': np.arange(BATCH, dtype=np.int32) % CLASSES}
  key = jax.random.key(seed)
  found = train_step.mixed(Mixing(mixup=1.0, per_pair=True), task, batch, key)
  prevails = np.asarray(found['target']).argmax(axis=-1)
  np.testing.assert_array_equal(found['label'], prevails)
  assert (prevails != batch['label']).any()
  logits = jax.nn.one_hot(prevails, CLASSES)
  assert task.metrics(logits, found)['accuracy'].mean() == 1.0


def test_label_sets_of_mixed_images_are_the_classes_with_more_than_half():
  task = tasks.build('multilabel', 3, label_smoothing=0.2)
  labels = np.array([[1, 0, 1], [0, 1, 1]] * 2, np.uint8)[[0, 0, 1, 1]]
  batch = {'image': np.zeros((4, 8, 8, 3), np.uint8), 'labels': labels}
  found = train_step.mixed(Mixing(mixup=1.0, per_pair=True), task, batch, jax.random.key(1))
  clean = (np.asarray(found['target']) - 0.1) / 0.8
  np.testing.assert_array_equal(found['labels'], clean > 0.5)
  np.testing.assert_array_equal(np.asarray(found['labels'])[:, 2], 1)
