"""Memory of a step: the plan's estimate beside XLA's analysis, and the lower bound by liveness."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp

from tests.training.runs import ROOT, command, options
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
  # The exponential is dear and read twice, the sums of rows are 64 bytes.
  assert _workspace(lambda x: jnp.exp(x) / jnp.exp(x).sum(0), KIB) == 64
  softmax = _workspace(lambda x: (lambda e: e / e.sum(0))(jnp.exp(x)), KIB)
  assert softmax == 1024 + 64
  # Of a chain of three matmuls two results are alive at once.
  assert _workspace(lambda x: x @ x @ x @ x, KIB) == 2 * 1024
  # What is not used is not computed, and reshaping copies nothing.
  assert _workspace(lambda x: (x @ x, x + 1)[1].reshape(4, 64).T, KIB) == 0


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


def _shown(words):
  """The plan's estimate and XLA's analysis, as a dry run in a process of its own shows them."""
  run = [sys.executable, '-m', 'vit_jax.main', *words, '--dry_run', '--json']
  environment = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
  done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
  plan, found = map(json.loads, done.stdout.splitlines())
  return sum(plan['memory_bytes'].values()), found['xla_memory_sum_bytes']


def test_the_plan_is_near_what_xla_says(tmp_path):
  wide = {'model__width': '96', 'model__num_heads': '3', 'model__drop_path_rate': '0'}
  more = {'model__depth': '3', 'batch_size': '256', 'dataset__val': '', 'model__dropout': '0'}
  estimate, exact = _shown(command(tmp_path, **wide, **more)[3:])
  assert 0.85 < estimate / exact < 1.15


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
