"""Blocks one after another: each written out, of one trace, or as one program that a loop runs."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.attention import BlockOptions

# Whether `traced_once` leaves every block to be traced by itself.
_apart = contextvars.ContextVar('apart', default=False)


def traced_once(parent: nn.Module, block_type: type[nn.Module], x: jax.Array) -> type[nn.Module]:
  """The module class, or one whose blocks of equal fields and shapes share a trace.

  JAX then traces, differentiates and lowers such a block once and calls it, in half the time for a
  ViT; XLA writes the calls out again and compiles the same program. Blocks are traced one by one
  where their insides are looked at (`apart`, 'intermediates', 'perturbations'), while parameters
  are made, since their keys would differ, and outside of a trace.

  Args:
    parent: the module that the blocks belong to, inside its compact method.
    block_type: of blocks that are called with (x, train).
    x: what the first of them gets.
  """
  return nn.jit(block_type, static_argnums=(2,)) if only_computed(parent, x) else block_type


def only_computed(module: nn.Module, x: jax.Array) -> bool:
  """Whether nothing but the output of a call with x is asked for: see `traced_once`."""
  one_by_one = _apart.get() or _looked_at(module) or module.is_initializing()
  return not one_by_one and isinstance(x, jax.core.Tracer)


def _looked_at(module: nn.Module) -> bool:
  return module.is_mutable_collection('intermediates') or 'perturbations' in module.variables


@contextlib.contextmanager
def apart() -> Iterator[None]:
  """What is traced within has every block traced by itself: interceptors meet all modules."""
  token = _apart.set(True)
  try:
    yield
  finally:
    _apart.reset(token)


def chosen_scan(scan: bool | None, remat: str) -> bool:
  """What None means on this backend; any other choice is returned as it is.

  XLA on CPU merges a rematerialised block with its first computation, and so keeps what was to be
  spared, unless a loop lies between them. Elsewhere blocks written out are the quicker ones.
  """
  if scan is not None:
    return scan
  return remat == 'block' and jax.default_backend() == 'cpu'


def run_blocks(
  parent: nn.Module,
  block_type: type[nn.Module],
  fields: Mapping[str, Any],
  options: BlockOptions,
  rates: Sequence[float],
  x: jax.Array,
  train: bool,
) -> jax.Array:
  """Calls blocks named 'block_00', 'block_01', ... as (x, train) -> x, one after another.

  With `options.scan` their parameters are stacked and `jax.lax.scan` runs over them, so that one
  block is traced and compiled, whatever the depth; parameters keep their names. Where
  'intermediates' are collected, and while parameters are made, blocks are written out. Random masks
  of the two ways differ, and in a loop frozen blocks take as long as others in the backward pass.

  Args:
    parent: the module that the blocks belong to, inside its compact method.
    block_type: of every block; has fields `options` and `drop_path`.
    fields: its other fields.
    options: of every block.
    rates: stochastic depth of each block.
    x: [b, n, d].
    train: whether dropout and stochastic depth act.
  """
  loop = chosen_scan(options.scan, options.remat)
  if loop and not parent.is_initializing() and not _looked_at(parent):
    return _scanned(parent, block_type, fields, options, rates, x, train)
  made = nn.remat(block_type, static_argnums=(2,)) if options.remat == 'block' else block_type
  made = traced_once(parent, made, x)
  for i, rate in enumerate(rates):
    x = made(**fields, options=options, drop_path=rate, name=f'block_{i:02d}')(x, train)
  return x


def _scanned(parent, block_type, fields, options, rates, x, train) -> jax.Array:
  params = [parent.variables['params'][f'block_{i:02d}'] for i in range(len(rates))]
  stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *params)
  varying = len(set(rates)) > 1
  keys = None
  if train and parent.has_rng('dropout'):
    keys = jax.random.split(parent.make_rng('dropout'), len(rates))

  def body(x, inputs):
    params, rate, key = inputs
    block = block_type(
      **fields, options=options, drop_path=rate if varying else rates[0], parent=None
    )
    rngs = {} if key is None else {'dropout': key}
    return block.apply({'params': params}, x, train, rngs=rngs), None

  if options.remat == 'block':
    body = jax.checkpoint(body, prevent_cse=False)  # the loop prevents it
  return jax.lax.scan(body, x, (stacked, jnp.asarray(rates), keys))[0]
