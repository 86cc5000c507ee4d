"""Which library computes a program on CPU, and that it is measured once."""

import concurrent.futures
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import kernels, parallel


@pytest.fixture
def measured(monkeypatch):
  """What this process has measured, to set."""
  monkeypatch.setattr(kernels, '_measured', {})
  return kernels._measured


@pytest.fixture
def cache(tmp_path):
  """A compilation cache of the test's own."""
  names = 'jax_compilation_cache_dir', 'jax_enable_compilation_cache'
  before = {name: jax.config.values[name] for name in names}
  jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'xla'))
  yield tmp_path / 'xla'
  for name, value in before.items():
    jax.config.update(name, value)


def _multiply(scale, x):
  return scale * (x @ x[:512])


def _convolve(kernel, x):
  return jax.lax.conv_general_dilated(
    x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


SCALE, MANY, FEW = jnp.float32(2), jnp.ones((2048, 512)), jnp.ones((2047, 512))
KERNEL, IMAGES = jnp.ones((3, 3, 128, 128)), jnp.ones((8, 56, 56, 128))


def _by_ynnpack(function, *args):
  return '__ynn_fusion' in kernels.jit(function).lower(*args).compile().as_text()


def test_the_library_that_was_faster_computes_matmuls_of_many_rows(measured):
  for ratio, by_ynnpack in ((1.2, False), (0.8, True), (1.0, True)):
    measured['matmul'] = ratio
    assert _by_ynnpack(_multiply, SCALE, MANY) == by_ynnpack
    assert _by_ynnpack(_multiply, SCALE, FEW)


def test_convolutions_are_chosen_by_their_own_measurement(measured):
  measured |= {'matmul': 0.8, 'convolution': 1.2}
  assert not _by_ynnpack(_convolve, KERNEL, IMAGES)
  measured['convolution'] = 0.8
  assert _by_ynnpack(_convolve, KERNEL, IMAGES)


def test_each_shape_has_its_program_and_all_give_the_same_values(measured):
  measured['matmul'] = 1.2
  random = np.random.default_rng(0)
  x = jnp.asarray(random.standard_normal((2048, 512), np.float32))
  chosen, plain = kernels.jit(_multiply), jax.jit(_multiply)
  for rows in (2048, 600, 2048):
    ours, theirs = chosen(SCALE, x[:rows]), plain(SCALE, x[:rows])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-4)
  assert chosen.trace(SCALE, MANY).lower().compile()(SCALE, MANY).shape == (2048, 512)


@pytest.mark.parametrize('devices', [1, 4])
def test_one_device_computes_steps_so_and_several_as_xla_has_it(measured, devices):
  measured['matmul'] = 1.2
  placement = parallel.make('data', jax.devices()[:devices])
  step = placement.compile_eval(lambda x, batch: _multiply(x, batch['image']))
  arguments = placement.put_state(SCALE), placement.put_batch({'image': np.asarray(MANY)})
  assert ('__ynn_fusion' in step.lower(*arguments).compile().as_text()) == (devices > 1)


def test_options_of_jit_are_kept(measured):
  measured['matmul'] = 1.2
  step = kernels.jit(lambda state, x: state + x @ x[:512], donate_argnums=0)
  state = jnp.zeros((2048, 512))
  step(state, MANY)
  assert state.is_deleted()


def test_small_programs_measure_nothing(measured, monkeypatch):
  monkeypatch.setattr(kernels, '_measure', lambda kind: pytest.fail(kind))
  small = jnp.ones((4096, 64))
  programs = [kernels.jit(lambda scale, x: scale * (x @ x[:64])), kernels.jit(_convolve)]
  programs[0](SCALE, small)
  programs[1](KERNEL, IMAGES[:1, :8, :8])
  assert not measured
  assert kernels.describe(*programs) == 'as XLA has it'


def test_products_that_contract_nothing_are_no_ones_choice(measured):
  measured['matmul'] = 1.2
  outer = kernels.jit(lambda scale, x: scale * jnp.einsum('bi,bj->bij', x, x))
  assert outer(SCALE, jnp.ones((64, 8))).shape == (64, 8, 8)


def test_within_another_program_it_is_a_part_of_that(measured, monkeypatch):
  step = kernels.jit(_multiply)
  monkeypatch.setattr(kernels, '_measure', lambda kind: pytest.fail(kind))
  assert jax.eval_shape(step, SCALE, MANY).shape == MANY.shape
  measured['matmul'] = 1.2
  step(SCALE, MANY)
  assert jax.eval_shape(step, SCALE, MANY).shape == MANY.shape
  assert jax.jit(step)(SCALE, MANY).shape == MANY.shape
  assert jax.grad(lambda scale: step(scale, MANY)[0, 0])(SCALE) == 512
  with jax.disable_jit():
    assert kernels.jit(_multiply)(SCALE, MANY).shape == MANY.shape


def test_arguments_may_be_what_jit_takes(measured):
  step = kernels.jit(lambda state, batch: state + batch['n'] * batch['x'])
  assert step(1.0, {'n': 2, 'x': np.float32(3)}) == 7


def test_flags_of_the_user_stay(measured, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_experimental_ynn_fusion_type=')
  assert type(kernels.jit(_multiply)) is type(jax.jit(_multiply))


def test_a_measurement_is_kept_with_the_cache(measured, monkeypatch, cache):
  taken = []
  monkeypatch.setattr(kernels, '_measure', lambda kind: taken.append(kind) or 1.25)
  for _ in range(2):  # the second time as another process
    kernels.jit(_multiply).lower(SCALE, MANY)
    assert measured == {'matmul': 1.25}
    measured.clear()
  assert taken == ['matmul']
  (file,) = cache.iterdir()
  for damaged in ('', '{"a": 1}', 'NaN', '-1.0', '[' * 5000, 'true'):
    file.write_text(damaged)
    assert kernels._kept('matmul') == 1.25
    assert json.loads(file.read_text()) == 1.25
  assert len(taken) == 7


def test_of_two_that_measure_at_once_both_take_the_first(measured, monkeypatch, cache):
  def slower(kind):
    monkeypatch.setattr(kernels, '_measure', lambda kind: 1.25)
    assert kernels._kept(kind) == 1.25
    return 0.75

  monkeypatch.setattr(kernels, '_measure', slower)
  assert kernels._kept('matmul') == 1.25


def test_without_a_folder_for_it_nothing_is_measured(measured, monkeypatch, cache):
  monkeypatch.setattr(kernels, '_measure', lambda kind: pytest.fail(kind))
  for folder in ('', 'gs://bucket/xla'):
    jax.config.update('jax_compilation_cache_dir', folder)
    assert kernels._kept('matmul') == 1.0
  jax.config.update('jax_compilation_cache_dir', str(cache))
  jax.config.update('jax_enable_compilation_cache', False)
  assert kernels._kept('matmul') == 1.0


def test_where_nothing_can_be_kept_nothing_is_measured(measured, monkeypatch, cache):
  cache.write_text('a file')
  monkeypatch.setattr(kernels, '_measure', lambda kind: pytest.fail(kind))
  assert kernels._kept('convolution') == 1.0


def test_a_file_system_without_links_keeps_it(measured, monkeypatch, cache):
  monkeypatch.setattr(kernels, '_measure', lambda kind: 1.25)
  monkeypatch.setattr(os, 'link', lambda *paths: (_ for _ in ()).throw(PermissionError(1, 'no')))
  assert kernels._kept('convolution') == 1.25
  assert [path.suffix for path in cache.iterdir()] == ['.json']


def test_threads_measure_once(measured, monkeypatch, cache):
  taken = []

  def slow(kind):
    time.sleep(0.1)
    taken.append(kind)
    return 1.5

  monkeypatch.setattr(kernels, '_measure', slow)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert set(pool.map(kernels._ratio, ['matmul'] * 4)) == {1.5}
  assert taken == ['matmul']


def test_both_libraries_are_measured():
  for kind in kernels._SAMPLES:
    assert 0.2 < kernels._measure(kind) < 20


def test_a_jaxlib_without_the_flag_has_its_own_programs(monkeypatch):
  monkeypatch.setattr(kernels, '_FLAG', 'xla_no_such_flag')
  assert kernels._measure('matmul') == 1.0


def test_what_was_chosen_is_said(measured):
  measured |= {'matmul': 1.118, 'convolution': 1.02}  # a difference that small is none
  step = kernels.jit(_multiply)
  step.lower(SCALE, MANY)
  assert kernels.describe(step) == 'matmuls by Eigen (1.12x as fast as YNNPACK)'
  other = kernels.jit(_convolve)
  other.lower(KERNEL, IMAGES)
  assert kernels.describe(other) == 'as XLA has it'
