"""Memory of a step that is traced: what is alive at once."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.training.runs import options
from vit_jax import parallel
from vit_jax.training import loop, preparation
from vit_jax.training.liveness import workspace

KIB = jnp.zeros((16, 16), jnp.float32)  # 1,024 bytes


def _workspace(function, *arrays):
  return workspace(jax.make_jaxpr(function)(*arrays))


def test_what_is_fused_takes_nothing_and_what_is_read_by_a_matmul_does():
  assert _workspace(lambda x: jnp.maximum(2 * x + 1, 0), KIB) == 0
  # 2 x + 1 is computed where it is read, twice; the product is the result.
  assert _workspace(lambda x: (2 * x + 1).T @ x, KIB) == 2 * 1024
  assert _workspace(lambda x: (2 * x + 1) * (2 * x - 1), KIB) == 0
  # The exponential is dear and read twice, the sums of rows are 64 bytes; written twice it is
  # computed once.
  assert _workspace(lambda x: (lambda e: e / e.sum(0))(jnp.exp(x)), KIB) == 1024 + 64
  assert _workspace(lambda x: jnp.exp(x) / jnp.exp(x).sum(0), KIB) == 1024 + 64
  # Of a chain of three matmuls two results are alive at once.
  assert _workspace(lambda x: x @ x @ x @ x, KIB) == 2 * 1024
  # What is not used is not computed, and reshaping copies nothing.
  assert _workspace(lambda x: (x @ x, x + 1)[1].reshape(4, 64).T, KIB) == 0
  # A barrier reads an array, once.
  assert _workspace(lambda x: 3 * jax.lax.optimization_barrier(2 * x + 1), KIB) == 1024


def test_residuals_live_until_the_backward_pass_and_loops_have_insides():
  def loss(w, x):
    for _ in range(5):
      x = jnp.maximum(x @ w, 0)
    return x.sum()

  # Five products and what of them the next one reads are kept, all but the last; then there is the
  # cotangent, and the sum of the gradients.
  assert 9 * 1024 <= _workspace(jax.grad(loss), KIB, KIB) <= 12 * 1024

  def looped(x):
    return jax.lax.scan(lambda c, _: ((c @ c @ c), c.sum()), x, None, length=7)[0]

  inside = _workspace(lambda c: c @ c @ c, KIB)
  assert inside <= _workspace(looped, KIB) <= inside + 2 * 1024


def test_what_devices_divide_is_gathered_where_a_matmul_reads_it():
  mesh = jax.make_mesh((4,), ('fsdp',), (AxisType.Auto,), devices=jax.devices()[:4])
  divided = NamedSharding(mesh, PartitionSpec('fsdp'))

  def divide(w):
    return jax.lax.with_sharding_constraint(w, divided)

  assert _workspace(lambda w, x: x @ w, KIB, KIB) == 1024
  assert _workspace(lambda w, x: x @ divide(w), KIB, KIB) == 2 * 1024
  # Once for both matmuls; again for what is computed again; before a loop.
  twice = _workspace(lambda w, x: (lambda v: x @ v @ v.T)(divide(w)), KIB, KIB)
  assert twice == 3 * 1024
  assert _workspace(lambda w: 2 * divide(w) + 1, KIB) == 0
  half = KIB.astype(jnp.bfloat16)
  assert _workspace(lambda w, x: x @ divide(w).astype(jnp.bfloat16), KIB, half) == 2 * 512

  def looped(w, x):
    return jax.lax.scan(lambda c, _: (c @ divide(w), None), x, None, length=7)[0]

  assert _workspace(looped, KIB, KIB) == 3 * 1024


def test_on_one_device_the_step_is_traced_once_for_the_plan_and_the_run(tmp_path, monkeypatch):
  make_placement, make_step, traces = parallel.make, preparation.make_train_step, []

  def counted(**arguments):
    step = make_step(**arguments)

    def train_step(*args):
      traces.append(args)
      return step(*args)

    return train_step

  def on_one_device(name, mesh=None):
    return make_placement(name, jax.devices()[:1], mesh)

  monkeypatch.setattr(preparation, 'make_train_step', counted)
  monkeypatch.setattr(parallel, 'make', on_one_device)
  loop.train(options(total='2 steps', dataset__val='', dataset__test=''), tmp_path / 'run')
  assert len(traces) == 1
