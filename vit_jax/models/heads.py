"""Heads that replace a model's own classifier."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vit_jax.models.layers import head


def backbone_of(module: nn.Module) -> nn.Module:
  """The model below other heads: a head's field `backbone`, or the module itself."""
  return getattr(module, 'backbone', module)


def with_backbone(module: nn.Module, **fields) -> nn.Module:
  """The module with other values of its backbone's fields."""
  body = backbone_of(module).clone(**fields)
  return module.clone(backbone=body) if hasattr(module, 'backbone') else body


def headless_of(module: nn.Module) -> nn.Module:
  """The part of a module whose outputs its heads see: pooled features, or those and patches."""
  return module.backbone if hasattr(module, 'backbone') else module.clone(num_classes=0)


class LastLayer(nn.Module):
  """A model's own classifier on features that were computed before."""

  num_classes: int
  dropout: float = 0.0  # rate on the features
  head_bias_init: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
    """Features [b, d] -> logits [b, num_classes], float32."""
    features = features.astype(jnp.dtype(self.dtype))
    features = nn.Dropout(self.dropout, name='dropout')(features, deterministic=not train)
    last = head(self.num_classes, self.dtype, 'head', self.head_bias_init)
    return last(features).astype(jnp.float32)


class GivenFeatures(nn.Module):
  """In a backbone's place: features that were computed before, packed by `pack`."""

  outputs: tuple[tuple[tuple[int, ...], str], ...]  # shape of an example's, and type, of each
  num_classes: int | None
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, packed: jax.Array, train: bool = False):
    """[b, n] -> what the backbone gives."""
    found, start = [], 0
    for shape, dtype in self.outputs:
      end = start + math.prod(shape)
      found.append(packed[:, start:end].reshape(-1, *shape).astype(dtype))
      start = end
    return found[0] if len(found) == 1 else tuple(found)


def pack(outputs: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
  """What a backbone gives as one float32 array [b, n], without loss."""
  leaves = jax.tree.leaves(outputs)
  return jnp.concatenate([x.reshape(len(x), -1).astype(jnp.float32) for x in leaves], axis=1)


def on_features(module: nn.Module, outputs: Sequence[jax.ShapeDtypeStruct]) -> nn.Module:
  """The heads of a module alone: takes packed features and the same parameters.

  Args:
    module: a model, or heads on one.
    outputs: what `headless_of` it gives for one image, [1, ...] each.
  """
  body = backbone_of(module)
  if body is module:
    return LastLayer(
      body.num_classes, getattr(body, 'dropout', 0.0), body.head_bias_init, body.dtype
    )
  shapes = tuple((x.shape[1:], x.dtype.name) for x in outputs)
  return module.clone(backbone=GivenFeatures(shapes, body.num_classes, body.dtype))


def by_name(outputs: jax.Array | dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Outputs of any module here as {'logits': [b, k], ...}."""
  return outputs if isinstance(outputs, dict) else {'logits': outputs}


class TwoLayers(nn.Module):
  """One hidden layer with ReLU and dropout, then the outputs."""

  hidden: int  # units of the hidden layer
  outputs: int
  dropout: float  # rate on the hidden layer
  bias_init: float = 0.0  # start of the outputs
  dtype: str = 'float32'  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Features [..., d] -> outputs [..., outputs], float32."""
    dtype = jnp.dtype(self.dtype)
    x = nn.relu(nn.Dense(self.hidden, dtype=dtype, name='hidden')(x))
    x = nn.Dropout(self.dropout, name='dropout')(x, deterministic=not train)
    x = nn.Dense(
      self.outputs,
      dtype=dtype,
      kernel_init=nn.initializers.normal(0.01),
      bias_init=nn.initializers.constant(self.bias_init),
      name='outputs',
    )(x)
    return x.astype(jnp.float32)


def dense_box(predictions: jax.Array) -> jax.Array:
  """A box from the predictions of all patches: each edge is a weighted mean over patches.

  A patch near an edge learns to predict that edge alone, from what it sees there, wherever in the
  image it is; a head on pooled features has to learn that for every location anew.

  Args:
    predictions: [b, h, w, 8] float32: offsets of left, top, right and bottom edge from those of a
      box of half the image's sides around the patch, in tenths of the image (whole images would
      move too far in the first steps); then, for each edge, a quarter of the logit of the patch's
      weight.

  Returns:
    Centre x, centre y, width, height as shares of the image [b, 4].

  Source: distances to the edges as in Tian et al. 2019 (1904.01355, FCOS), section 3.1; a mean
  weighted by a softmax over locations as in Sun et al. 2018 (1711.08229), section 3.
  """
  b, h, w, _ = predictions.shape
  x = jnp.broadcast_to((jnp.arange(w) + 0.5) / w, (h, w))
  y = jnp.broadcast_to(((jnp.arange(h) + 0.5) / h)[:, None], (h, w))
  around = jnp.stack([x - 0.25, y - 0.25, x + 0.25, y + 0.25], axis=-1)
  weights = nn.softmax(4.0 * predictions[..., 4:].reshape(b, h * w, 4), axis=1)
  edges = (around + 0.1 * predictions[..., :4]).reshape(b, h * w, 4)
  low, high = jnp.split((weights * edges).sum(axis=1), 2, axis=-1)
  return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


class ClassAndBox(nn.Module):
  """Any model of the registry as a backbone, with a head for the class and one for a box.

  The backbone's parameters keep their names, so that its weights, its converters and the options
  that freeze it work as before; the heads' names begin with 'head_class', 'head_box' and
  'head_uncertainty'.
  """

  backbone: nn.Module  # num_classes 0: box head on pooled features; None: dense box head
  num_classes: int
  hidden: int = 512  # units of each head's hidden layer
  dropout: float = 0.2  # rate on the hidden layers
  box_sigmoid: bool = True  # whether a box from pooled features passes a sigmoid at the end
  learned_weights: bool = False  # whether the losses' weights are learned

  def setup(self):
    nn.share_scope(self, self.backbone)
    dtype = self.backbone.dtype
    self.head_class = TwoLayers(self.hidden, self.num_classes, self.dropout, dtype=dtype)
    # All start at the box of half the image's sides in its middle.
    dense = self.backbone.num_classes is None
    start = 0.0 if dense or self.box_sigmoid else 0.5
    self.head_box = TwoLayers(self.hidden, 8 if dense else 4, self.dropout, start, dtype)
    if self.learned_weights:
      self.head_uncertainty = self.param('head_uncertainty', nn.initializers.zeros, (2,))

  def __call__(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
    """Classifies images and predicts a box in each.

    Args:
      images: [b, h, w, c] float, in the value range of the backbone.
      train: whether dropout and stochastic depth act.

    Returns:
      'logits' [b, num_classes]; 'box' [b, 4], centre x, centre y, width, height as shares of the
      image; with learned weights 'log_variance' [b, 2], the logarithms of the variances of the
      class loss and of the box loss, the same for every image. All float32.

    Source: the learned weights are those of Kendall et al. 2018 (1705.07115), section 3.2.
    """
    if self.backbone.num_classes is None:
      features, patches = self.backbone(images, train)  # [b, d], [b, h, w, d]
      box = dense_box(self.head_box(patches, train))
    else:
      features = self.backbone(images, train)
      box = self.head_box(features, train)
      box = nn.sigmoid(box) if self.box_sigmoid else box
    outputs = {'logits': self.head_class(features, train), 'box': box}
    if self.learned_weights:
      outputs['log_variance'] = jnp.broadcast_to(self.head_uncertainty, (len(features), 2))
    return outputs
