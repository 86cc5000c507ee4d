"""Blocks one after another, written out or as one program that a loop runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.attention import BlockOptions


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
  special = parent.is_mutable_collection('intermediates') or 'perturbations' in parent.variables
  if chosen_scan(options.scan, options.remat) and not parent.is_initializing() and not special:
    return _scanned(parent, block_type, fields, options, rates, x, train)
  made = nn.remat(block_type, static_argnums=(2,)) if options.remat == 'block' else block_type
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
