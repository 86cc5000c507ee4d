"""Learning-rate schedules, optimizers and the masks that say which weights they touch."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from vit_jax import tree
from vit_jax.config import Length, Optimizer, Schedule, parse_multiplier
from vit_jax.errors import UserError

ScheduleFn = Callable[[jax.Array], jax.Array]


def make_schedule(
  options: Schedule, peak: float, total_steps: int, steps_of: Callable[[str], int]
) -> ScheduleFn:
  """The learning rate as a function of the step.

  Args:
    options: name, warmup and the like.
    peak: the highest rate.
    total_steps: length of training.
    steps_of: turns a length such as '5 epochs' into steps.

  Returns:
    A function from the step (0 first) to the rate used in that step.
  """
  warmup, cooldown = steps_of(options.warmup), steps_of(options.cooldown)
  timescale = max(1, steps_of(options.timescale))
  decay_steps = max(1, total_steps - warmup)

  def rate(step: jax.Array) -> jax.Array:
    since = jnp.maximum(0.0, step - warmup)
    progress = jnp.clip(since / decay_steps, 0.0, 1.0)
    if options.name == 'cosine':
      share = options.end + (1 - options.end) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif options.name == 'linear':
      share = 1 - (1 - options.end) * progress
    elif options.name == 'rsqrt':
      # Nearly flat for one timescale, then 1/sqrt(step). Source: 2106.04560, section 3.5
      share = 1 / jnp.sqrt(1 + since / timescale)
    else:
      share = jnp.float32(1.0)
    if warmup:
      share *= jnp.minimum(1.0, (step + 1) / warmup)
    if cooldown:
      share *= jnp.clip((total_steps - step) / cooldown, 0.0, 1.0)
    return peak * share

  return rate


def decay_mask(params: dict, pattern: str) -> dict:
  """Which parameters weight decay applies to: those whose name the regex finds."""
  return tree.map_named(lambda name, _: bool(re.search(pattern, name)), params)


_EMBEDDINGS = (
  r'^(stem|root|patch_embedding|tokens_to_token|\w+_token|registers|position_embedding)(/|$)'
)


def frozen_names(params: dict, words: tuple[str, ...]) -> frozenset[str]:
  """Names of the parameters that training leaves alone.

  Args:
    params: arrays or shapes.
    words: 'backbone' (all but the heads), 'embeddings' (what is before the blocks), 'blocks:N' (the
      first N blocks), or a regex over names.

  Raises:
    UserError: a word that finds no parameter, or all of them together leave none.
  """
  names = list(tree.flatten(params))
  frozen: set[str] = set()
  problems = []
  for word in words:
    found = {name for name in names if _is_meant(word, name)}
    if not found:
      problems.append(f'config.freeze: {word!r} finds no parameter; names are like {names[0]}, '
                      f'{names[len(names) // 2]}')
    frozen |= found
  if names and len(frozen) == len(names):
    problems.append('config.freeze leaves nothing to train')
  if problems:
    raise UserError(problems)
  return frozenset(frozen)


def _is_meant(word: str, name: str) -> bool:
  if word == 'backbone':
    return not name.startswith('head')
  if word == 'embeddings':
    return bool(re.search(_EMBEDDINGS, name))
  if re.fullmatch(r'blocks:\d+', word):
    block = re.match(r'encoder/block_(\d+)/', name)
    return bool(block) and int(block[1]) < int(word.split(':')[1])
  return bool(re.search(word, name))


def rate_multipliers(params: dict, patterns: tuple[str, ...]) -> dict:
  """The factor of each parameter's learning rate: that of the first regex that finds its name.

  Args:
    params: arrays or shapes.
    patterns: 'REGEX=FACTOR'; a parameter that none finds has 1.

  Raises:
    UserError: a pattern that finds no parameter, or is none.
  """
  rules = [parse_multiplier(pattern) for pattern in patterns]
  unused = {pattern for pattern, _ in rules}

  def factor(name: str, _) -> float:
    for pattern, value in rules:
      if re.search(pattern, name):
        unused.discard(pattern)
        return value
    return 1.0

  factors = tree.map_named(factor, params)
  if unused:
    raise UserError([
      f'config.optimizer.multipliers: no parameter is left for {pattern!r}; names are like '
      f'{", ".join(list(tree.flatten(params))[:3])}' for pattern in sorted(unused)
    ])
  return factors


def make_optimizer(options: Optimizer, schedule: ScheduleFn) -> optax.GradientTransformation:
  """The update rule, with clipping before and weight decay as the rule wants it.

  SGD adds weight decay to the gradient; AdamW shrinks the weights by learning rate times decay.
  Momentum (SGD) or the first moment (AdamW) is kept in `state_dtype`.
  """
  dtype = jnp.dtype(options.state_dtype)

  def mask(params: dict) -> dict:
    return decay_mask(params, options.decay)

  steps = []
  if options.clip_norm:
    steps.append(optax.clip_by_global_norm(options.clip_norm))
  decay = optax.add_decayed_weights(options.weight_decay, mask) if options.weight_decay else None
  if options.name == 'sgd':
    steps += [decay] if decay else []
    if options.momentum:
      steps.append(optax.trace(decay=options.momentum, accumulator_dtype=dtype))
  elif options.name == 'adamw':
    steps.append(optax.scale_by_adam(options.b1, options.b2, options.eps, mu_dtype=dtype))
    steps += [decay] if decay else []
  steps.append(optax.scale_by_learning_rate(schedule))
  if options.multipliers:
    steps.append(optax.stateless(lambda updates, params: jax.tree.map(
      lambda u, factor: u * factor, updates, rate_multipliers(params, options.multipliers)
    )))
  return optax.chain(*steps)


def steps_of(length: str, batch_size: int, num_examples: int) -> int:
  """A length ('5 epochs') in whole steps, for one batch size and dataset."""
  return round(Length.parse(length).steps(batch_size, num_examples))
