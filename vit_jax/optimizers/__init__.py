"""Learning-rate schedules, update rules, and which weights they touch how much."""

import dataclasses
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
      problems.append(
        f'config.freeze: {word!r} finds no parameter; names are like {names[0]}, '
        f'{names[len(names) // 2]}'
      )
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


@dataclasses.dataclass(frozen=True)
class Factors:
  """What a parameter's learning rate and weight decay are multiplied by."""

  rate: float
  decay: float


def factors(params: dict, options: Optimizer) -> dict[str, Factors]:
  """The factors of every parameter, by name.

  A rule 'REGEX=FACTOR' counts for the parameters that its regex finds and no rule before it does.

  Args:
    params: arrays or shapes.
    options: with `multipliers`, `layer_decay` and `decay`.

  Raises:
    UserError: a rule that finds no parameter, or a parameter that no rule finds.
  """
  names = list(tree.flatten(params))
  problems: list[str] = []
  rates = _by_rule(names, options.multipliers, 'multipliers', problems)
  decays = dict.fromkeys(names, 0.0)
  if options.weight_decay:
    decays = _by_rule(names, options.decay, 'decay', problems)
  layers = _layers(names)
  if options.layer_decay < 1 and max(layers.values()) < 2:
    problems.append(
      f'config.optimizer.layer_decay needs a model of blocks; names are like {", ".join(names[:3])}'
    )
  if problems:
    raise UserError(problems)
  top = max(layers.values())
  return {
    name: Factors(rates[name] * options.layer_decay ** (top - layers[name]), decays[name])
    for name in names
  }


def _by_rule(
  names: list[str], patterns: tuple[str, ...], option: str, problems: list[str]
) -> dict[str, float]:
  found: dict[str, float] = {} if patterns else dict.fromkeys(names, 1.0)
  for pattern, value in map(parse_multiplier, patterns):
    new = {name: value for name in names if name not in found and re.search(pattern, name)}
    if not new and pattern != '.*':  # the rule for whatever is left may find nothing
      problems.append(
        f'config.optimizer.{option}: no parameter is left for {pattern!r}; names '
        f'are like {", ".join(names[:3])}'
      )
    found |= new
  missed = [name for name in names if name not in found]
  if missed:
    problems.append(
      f'config.optimizer.{option}: {len(missed)} of {len(names)} parameters are in '
      f"no rule, such as {missed[0]}: end with '.*=1'"
    )
  return found


_BLOCK = re.compile(r'^((class_)?encoder/block_\d+|block\d+/unit\d+|block_\d+)/')


def _layers(names: list[str]) -> dict[str, int]:
  """Each parameter's depth: 0 before the blocks, then one a block, then what follows them.

  Source: BEiT, 2106.08254, appendix H, where layers below learn slower.
  """
  prefixes = {name: match[1] for name in names if (match := _BLOCK.match(name))}
  # Class-attention blocks come after the others; numbers of one length sort as they stand.
  blocks = sorted(set(prefixes.values()), key=lambda p: (p.startswith('class_'), *_numbers(p)))
  depth = {prefix: i + 1 for i, prefix in enumerate(blocks)}

  def layer(name: str) -> int:
    if name in prefixes:
      return depth[prefixes[name]]
    return 0 if re.search(_EMBEDDINGS, name) else len(blocks) + 1

  return {name: layer(name) for name in names}


def _numbers(text: str) -> list[int]:
  return [int(digits) for digits in re.findall(r'\d+', text)]


def make_optimizer(
  options: Optimizer, schedule: ScheduleFn, known: dict[str, Factors]
) -> optax.GradientTransformation:
  """The update rule, with clipping before and weight decay as the rule wants it.

  SGD adds weight decay to the gradient; the others shrink the weights by learning rate times decay.
  Momentum (SGD, Adafactor) or the first moment is kept in `state_dtype`.

  Args:
    options: name and numbers.
    schedule: the learning rate by step.
    known: each parameter's factors; see `factors`.

  Sources: Adam with decoupled decay, 1711.05101; LAMB, 1904.00962; Lion, 2302.06675; Adafactor with
  momentum, as Scaling ViT has it, 2106.04560, section 3.4.
  """

  def decayed(updates: dict, params: dict) -> dict:
    def decay(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
      factor = options.weight_decay * known[name].decay
      return update + factor * param if factor else update

    return tree.map_pairs(decay, updates, params)

  def scaled(updates: dict, _) -> dict:
    return tree.map_named(lambda name, u: u * known[name].rate, updates)

  decay = [optax.stateless(decayed)] if options.weight_decay else []
  steps = []
  if options.clip_norm:
    steps.append(optax.clip_by_global_norm(options.clip_norm))
  if options.clip_value:
    steps.append(optax.clip(options.clip_value))
  if options.name == 'sgd':
    steps += decay + _rule(options)
  elif options.name == 'lamb':
    steps += _rule(options) + decay + [optax.scale_by_trust_ratio()]
  else:
    steps += _rule(options) + decay
  steps.append(optax.scale_by_learning_rate(schedule))
  if options.multipliers or options.layer_decay < 1:
    steps.append(optax.stateless(scaled))
  return optax.chain(*steps)


def _rule(options: Optimizer) -> list[optax.GradientTransformation]:
  """How gradients become updates, before decay and learning rate."""
  dtype = jnp.dtype(options.state_dtype)
  if options.name == 'sgd':
    momentum = options.momentum
    return [optax.trace(decay=momentum, accumulator_dtype=dtype)] if momentum else []
  if options.name == 'lion':
    return [optax.scale_by_lion(options.b1, options.b2, mu_dtype=dtype)]
  if options.name == 'adafactor':
    rms = optax.scale_by_factored_rms(
      min_dim_size_to_factor=32,
      decay_rate_fn=lambda step, power: jnp.minimum(
        options.b2, 1.0 - (jnp.asarray(step, jnp.float32) + 1.0) ** -power
      ),
    )
    if not options.momentum:
      return [rms]
    return [rms, optax.ema(options.momentum, debias=False, accumulator_dtype=dtype)]
  return [optax.scale_by_adam(options.b1, options.b2, options.eps, mu_dtype=dtype)]


@dataclasses.dataclass(frozen=True)
class Sharpness:
  """Sharpness-aware minimisation: a second gradient, uphill of the weights.

  Attributes:
    rho: how far uphill, by step.
    alpha: GSAM's weight of the step that lowers sharpness alone; 0 for SAM.

  Sources: SAM, Foret et al., 2010.01412; GSAM, Zhuang et al., 2203.08065, algorithm 1.
  """

  rho: ScheduleFn
  alpha: float

  def uphill(self, params: dict, grads: dict, step: jax.Array) -> dict:
    """The weights at distance rho along the gradient."""
    share = self.rho(step) / (optax.tree.norm(grads) + 1e-12)
    return jax.tree.map(lambda p, g: p + share * g, params, grads)

  def combine(self, grads: dict, uphill_grads: dict) -> dict:
    """The gradient to descend, from those at the weights and uphill of them."""
    if not self.alpha:
      return uphill_grads
    along = optax.tree.vdot(grads, uphill_grads) / (optax.tree.norm(uphill_grads) ** 2 + 1e-12)
    return jax.tree.map(lambda g, up: up - self.alpha * (g - along * up), grads, uphill_grads)


def make_sharpness(options: Optimizer, schedule: ScheduleFn) -> Sharpness | None:
  """SAM or GSAM as the options say, or None."""
  if not options.sam_rho:
    return None
  end = options.sam_rho_end

  def rho(step: jax.Array) -> jax.Array:
    return options.sam_rho * (end + (1 - end) * schedule(step) / options.learning_rate)

  return Sharpness(rho, options.gsam_alpha)


def steps_of(length: str, batch_size: int, num_examples: int) -> int:
  """A length ('5 epochs') in whole steps, for one batch size and dataset."""
  return round(Length.parse(length).steps(batch_size, num_examples))
