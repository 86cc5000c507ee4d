"""What is computed inside a transformer: attention weights, their gradients, tokens, by block."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import tree
from vit_jax.errors import ModelError
from vit_jax.models.heads import backbone_of, by_name

TENSORS = ('weights', 'query', 'key', 'value', 'output')
KINDS = ('self', 'class', 'probe')

Variables = Mapping[str, Any]


class NotApplicable(ModelError):
  """Something that a model does not have: a convolutional network has no attention."""


@dataclasses.dataclass(frozen=True)
class Layer:
  """One attention layer, with everything on the CPU as float32.

  Args:
    name: path in the module, 'encoder/block_00/attention'.
    kind: which queries there are: of all tokens ('self'), of a class token alone ('class', as in
      CaiT's last blocks), or of attention pooling ('probe').
    prefix: tokens in front of the patches among the keys.
    weights: [b, h, n, m]; every row sums to one.
    query, key, value: [b, h, n, k], or None where they were not kept.
    gradient: [b, h, n, m], of a logit by the weights; None unless made by `capture_gradients`.
  """

  name: str
  kind: str
  prefix: int
  weights: np.ndarray
  query: np.ndarray | None = None
  key: np.ndarray | None = None
  value: np.ndarray | None = None
  gradient: np.ndarray | None = None

  @property
  def label(self) -> str:
    """A short name for figures: 'block 3', 'class block 1', 'pooling'."""
    if self.kind == 'probe':
      return 'pooling'
    block = [part for part in self.name.split('/') if part.startswith('block')][-1]
    number = int(block.removeprefix('block').lstrip('_'))
    return f'{"class " if self.kind == "class" else ""}block {number}'


@dataclasses.dataclass(frozen=True)
class Captured:
  """What a transformer computed from images.

  Args:
    logits: [b, num_classes], or pooled features of a model without a head.
    grid: rows and columns of patches.
    patch_size: (height, width) of a patch in pixels.
    class_token: whether the head reads a class token.
    distilled: whether a distillation token follows the class token.
    layers: attention layers in the order of computation; empty for an MLP-Mixer.
    outputs: what each block returns, name to [b, n, d]; patches are the last tokens.
    tokens: [b, n, d] after the last normalisation.
  """

  logits: np.ndarray
  grid: tuple[int, int]
  patch_size: tuple[int, int]
  class_token: bool
  distilled: bool
  layers: tuple[Layer, ...]
  outputs: dict[str, np.ndarray]
  tokens: np.ndarray | None

  def patches(self, tokens: np.ndarray) -> np.ndarray:
    """The patch tokens of [b, n, d] (or [b, h, n, k]) as a grid: [b, (h,) rows, columns, d]."""
    rows, columns = self.grid
    tokens = tokens[..., tokens.shape[-2] - rows * columns :, :]
    return tokens.reshape(*tokens.shape[:-2], rows, columns, tokens.shape[-1])


def capture(
  module: nn.Module,
  variables: Variables,
  images: jax.Array | np.ndarray,
  tensors: Sequence[str] = TENSORS,
) -> Captured:
  """Runs a model and keeps its intermediate tensors. Fused attention is bypassed.

  Args:
    module: a transformer from `models.build`.
    variables: of the module.
    images: [b, h, w, c] in the value range of the weights.
    tensors: which to keep, of 'weights', 'query', 'key', 'value', 'output'; keep few of a large
      model, as weights alone are b * h * n * n floats per block.

  Raises:
    NotApplicable: the model has no tokens (a convolutional network).
  """
  grid = _grid_of(module, images)
  logits, found = _forward(module, grid, tuple(tensors))(variables, images)
  return _captured(module, grid, logits, found)


def capture_gradients(
  module: nn.Module,
  variables: Variables,
  images: jax.Array | np.ndarray,
  classes: int | Sequence[int],
) -> Captured:
  """Like `capture`, of attention weights, with the gradient of one logit per image by them.

  Args:
    module, variables, images: as in `capture`.
    classes: index of the logit of each image [b], or one index for all.

  Raises:
    NotApplicable: no tokens, no head or no attention.
    ModelError: no such class.
  """
  grid = _grid_of(module, images)
  if not module.num_classes:
    raise NotApplicable('gradients need a class: this model has no head (num_classes=0)')
  indices = np.broadcast_to(np.asarray(classes, np.int32), (images.shape[0],))
  wrong = indices[(indices < 0) | (indices >= module.num_classes)]
  if wrong.size:
    raise ModelError(
      f'class {wrong[0]} is not one of {module.num_classes}: give 0 to {module.num_classes - 1}'
    )
  logits, found, gradients = _backward(module, grid)(variables, images, indices)
  if not gradients:
    raise NotApplicable(f'{type(module).__name__} has no attention to take gradients of')
  dead = [name for name, g in gradients.items() if not np.any(g)]
  if dead:
    raise NotApplicable(
      f'the gradient of the class is zero in {dead[0]}: the head was never trained'
    )
  return _captured(module, grid, logits, found, gradients)


def _grid_of(module: nn.Module, images: jax.Array | np.ndarray) -> tuple[int, int]:
  module = backbone_of(module)
  if not hasattr(module, 'num_prefix_tokens'):
    raise NotApplicable(
      f'{type(module).__name__} has no patch tokens, as transformers and Mixers have; nearest '
      'images work for every model'
    )
  h, w = images.shape[1:3]
  return h // module.patch_size[0], w // module.patch_size[1]


@functools.lru_cache(maxsize=4)
def _forward(
  module: nn.Module, grid: tuple[int, int], tensors: tuple[str, ...]
) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
  """Compiled (variables, images) -> (logits, {name: tensor})."""

  def run(variables: Variables, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    outputs, state = module.apply(variables, images, mutable=['intermediates'])
    return by_name(outputs)['logits'], _select(state, tensors, _token_counts(module, grid))

  return jax.jit(run)


def _token_counts(module: nn.Module, grid: tuple[int, int]) -> range:
  """How many tokens a tensor may have: the patches, with some or all tokens in front."""
  patches = grid[0] * grid[1]
  return range(patches, patches + backbone_of(module).num_prefix_tokens + 1)


def _select(
  state: Mapping[str, Any], tensors: Sequence[str], counts: range
) -> dict[str, jax.Array]:
  """The wanted tensors by path, without those on the finer grids before an encoder (T2T)."""
  found: dict[str, jax.Array] = {}
  for path, (value, *_) in tree.flatten(state.get('intermediates', {})).items():
    name = path.rsplit('/', 1)[-1]
    tokens = value.shape[-1 if name == 'weights' else -2]
    if name in (*tensors, 'tokens') and tokens in counts:
      found[path] = value.astype(jnp.float32)
  return found


@functools.lru_cache(maxsize=4)
def _backward(module: nn.Module, grid: tuple[int, int]) -> Callable[..., tuple]:
  """Compiled (variables, images, classes) -> (logits, weights, gradients by the weights).

  Attention adds whatever 'perturbations' holds to its weights: the gradient by those zeros is the
  gradient by the weights, while everything before them is constant.
  """

  def run(variables: Variables, images: jax.Array, classes: jax.Array) -> tuple:
    def forward(perturbations: Mapping[str, Any]) -> tuple:
      given = {**variables, 'perturbations': perturbations}
      outputs, state = module.apply(given, images, mutable=['intermediates'])
      logits = by_name(outputs)['logits']
      chosen = jnp.take_along_axis(logits, classes[:, None], axis=1)
      return chosen.sum(), (logits, _select(state, ('weights',), _token_counts(module, grid)))

    shapes = jax.eval_shape(lambda: forward({})[1][1])
    zeros = {n: jnp.zeros(s.shape) for n, s in shapes.items() if n.endswith('/weights')}
    gradients, (logits, found) = jax.grad(forward, has_aux=True)(tree.unflatten(zeros))
    return logits, found, tree.flatten(gradients)

  return jax.jit(run)


def _captured(
  module: nn.Module,
  grid: tuple[int, int],
  logits: jax.Array,
  tensors: Mapping[str, jax.Array],
  gradients: Mapping[str, jax.Array] | None = None,
) -> Captured:
  module = backbone_of(module)
  found = {name: np.asarray(x) for name, x in tensors.items()}
  names = [n.removesuffix('/weights') for n in found if n.endswith('/weights')]
  layers = [_layer(name, grid, found, gradients or {}) for name in names]
  # Blocks that see all tokens run first, then class-attention blocks, then pooling.
  layers.sort(key=lambda layer: (KINDS.index(layer.kind), layer.name))
  return Captured(
    logits=np.asarray(logits),
    grid=grid,
    patch_size=tuple(module.patch_size),
    class_token=module.num_prefix_tokens > getattr(module, 'num_registers', 0),
    distilled=bool(getattr(module, 'distilled', False)),
    layers=tuple(layers),
    outputs={n.removesuffix('/output'): x for n, x in found.items() if n.endswith('/output')},
    tokens=found.get('tokens'),
  )


def _layer(
  name: str,
  grid: tuple[int, int],
  found: Mapping[str, np.ndarray],
  gradients: Mapping[str, jax.Array],
) -> Layer:
  weights = found[f'{name}/weights']
  queries, keys = weights.shape[-2:]
  kind = 'probe' if name.startswith('map_pool') else 'self' if queries == keys else 'class'
  gradient = gradients.get(f'{name}/weights')
  return Layer(
    name=name,
    kind=kind,
    prefix=keys - grid[0] * grid[1],
    weights=weights,
    query=found.get(f'{name}/query'),
    key=found.get(f'{name}/key'),
    value=found.get(f'{name}/value'),
    gradient=None if gradient is None else np.asarray(gradient),
  )
