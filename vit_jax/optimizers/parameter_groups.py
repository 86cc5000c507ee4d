"""Which parameters are frozen, and which have a learning rate or weight decay of their own."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from vit_jax import tree
from vit_jax.errors import ConfigError

_EMBEDDINGS = (
  r'^(stem|root|patch_embedding|tokens_to_token|\w+_token|registers|position_embedding)(/|$)'
)
_BLOCK = re.compile(r'^((class_)?encoder/block_\d+|block\d+/unit\d+|block_\d+)/')

_LARGEST_FACTOR = 1e6


def parse_multiplier(text: str) -> tuple[str, float]:
  """'REGEX=FACTOR' as its two parts.

  Raises:
    ConfigError: the text is of another form.
  """
  pattern, equals, factor = text.rpartition('=')
  try:
    if not equals or not 0 <= float(factor) <= _LARGEST_FACTOR:
      raise ValueError
    re.compile(pattern)
    return pattern, float(factor)
  except (ValueError, re.error):
    raise ConfigError(
      f"expected 'REGEX=FACTOR' with a factor from 0 to 1e6, got {text!r}"
    ) from None


def check_pattern(text: str) -> None:
  """Raises a `ConfigError` unless the text is a regex."""
  try:
    re.compile(text)
  except re.error as e:
    raise ConfigError(f'{text!r} is not a regex: {e}') from None


def frozen_names(params: Mapping, words: Sequence[str]) -> frozenset[str]:
  """Names of the parameters that are not trained.

  Args:
    params: arrays or shapes.
    words: 'backbone' (all but the heads), 'embeddings' (what precedes the blocks), 'blocks:N' (the
      first N blocks), or a regex over names.

  Raises:
    ConfigError: a word that matches no parameter, more blocks than there are, or all words together
      leave nothing to train.
  """
  names = list(tree.flatten(params))
  depth = len({m[1] for name in names if (m := re.match(r'encoder/block_(\d+)/', name))})
  frozen: set[str] = set()
  problems = []
  for word in words:
    found = {name for name in names if _matches(word, name)}
    blocks = re.fullmatch(r'blocks:(\d+)', word)
    if blocks and depth and int(blocks[1]) > depth:
      problems.append(f'config.freeze: {word!r}, but the model has {depth} blocks')
    elif not found:
      problems.append(
        f'config.freeze: {word!r} matches no parameter; names are like {names[0]}, '
        f'{names[len(names) // 2]}'
      )
    frozen |= found
  if names and len(frozen) == len(names):
    problems.append('config.freeze leaves nothing to train')
  if problems:
    raise ConfigError(problems)
  return frozenset(frozen)


def _matches(word: str, name: str) -> bool:
  if word == 'backbone':
    return not name.startswith('head')
  if word == 'embeddings':
    return bool(re.search(_EMBEDDINGS, name))
  if re.fullmatch(r'blocks:\d+', word):
    block = re.match(r'encoder/block_(\d+)/', name)
    return block is not None and int(block[1]) < int(word.split(':')[1])
  return bool(re.search(word, name))


@dataclasses.dataclass(frozen=True)
class Factors:
  """What a parameter's learning rate and weight decay are multiplied by."""

  rate: float
  decay: float


def parameter_factors(
  params: Mapping,
  multipliers: Sequence[str] = (),
  decay: Sequence[str] = (),
  weight_decay: float = 0.0,
  layer_decay: float = 1.0,
) -> dict[str, Factors]:
  """The factors of every parameter, by name.

  A rule 'REGEX=FACTOR' applies to the parameters that its regex matches and no rule before it does.

  Args:
    params: arrays or shapes.
    multipliers: rules for the learning rate; none for 1.
    decay: rules for weight decay.
    weight_decay: where it is 0, decay is 0 for all.
    layer_decay: learning rate of each block as a fraction of that of the next one up.

  Raises:
    ConfigError: a rule that matches no parameter, or a parameter that no rule matches.
  """
  names = list(tree.flatten(params))
  problems: list[str] = []
  rates = _by_rule(names, multipliers, 'multipliers', problems)
  decays = dict.fromkeys(names, 0.0)
  if weight_decay:
    decays = _by_rule(names, decay, 'decay', problems)
  layers = _layers(names)
  top = max(layers.values())
  if layer_decay < 1 and top < 2:
    problems.append(
      f'config.optimizer.layer_decay needs a model of blocks; names are like {", ".join(names[:3])}'
    )
  if problems:
    raise ConfigError(problems)
  return {
    name: Factors(rates[name] * layer_decay ** (top - layers[name]), decays[name]) for name in names
  }


def _like(pattern: str, names: Sequence[str]) -> Sequence[str]:
  """The names that hold a word of a regex, or all of them."""
  words = re.findall(r'[a-z]{3,}', pattern)
  return [name for name in names if any(word in name for word in words)] or names


def _by_rule(
  names: Sequence[str], patterns: Sequence[str], option: str, problems: list[str]
) -> dict[str, float]:
  found: dict[str, float] = {} if patterns else dict.fromkeys(names, 1.0)
  for pattern, value in map(parse_multiplier, patterns):
    new = {name: value for name in names if name not in found and re.search(pattern, name)}
    if not new and pattern != '.*':  # the rule for whatever is left may match nothing
      problems.append(
        f'config.optimizer.{option}: no parameter is left for {pattern!r}; names are like '
        f'{", ".join(_like(pattern, names)[:3])}'
      )
    found |= new
  missed = [name for name in names if name not in found]
  if missed:
    problems.append(
      f'config.optimizer.{option}: {len(missed)} of {len(names)} parameters match no rule, such as '
      f"{missed[0]}: end with '.*=1'"
    )
  return found


def _block_prefixes(names: Sequence[str]) -> dict[str, str]:
  """The prefix of its block for each parameter that is in one."""
  return {name: match[1] for name in names if (match := _BLOCK.match(name))}


def _layers(names: Sequence[str]) -> dict[str, int]:
  """Each parameter's depth: 0 before the blocks, then one a block, then what follows them.

  Source: BEiT, 2106.08254, appendix H, where lower layers learn more slowly.
  """
  prefixes = _block_prefixes(names)
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
