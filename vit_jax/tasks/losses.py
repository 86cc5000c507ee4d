"""Losses of each example, in float32 whatever the precision of the model."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from vit_jax.registry import Registry

BoxLoss = Callable[[jax.Array, jax.Array], jax.Array]

LOSSES: Registry[type['Loss']] = Registry('loss', 'vit_jax.tasks')
BOX_LOSSES: Registry[BoxLoss] = Registry('box loss', 'vit_jax.tasks')


@dataclasses.dataclass(frozen=True)
class Loss:
  """A classification loss; a subclass's fields, made by `option`, are options of `config.task`.

  Attributes:
    activation: how its logits become probabilities: 'softmax', or 'sigmoid' for each class.
  """

  activation: ClassVar[str] = 'softmax'

  def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """[b, k], [b, k] -> [b]."""
    raise NotImplementedError


@LOSSES.register('softmax')
@dataclasses.dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
  """Cross-entropy of one distribution over the classes."""

  activation = 'softmax'

  def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


@LOSSES.register('sigmoid')
@dataclasses.dataclass(frozen=True)
class SigmoidCrossEntropy(Loss):
  """Binary cross-entropy summed over classes.

  Source: Beyer et al., 2006.07159, section 5, as in AugReg's ImageNet-21k pretraining.
  """

  activation = 'sigmoid'

  def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
    losses = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets)  # [b, k]
    return losses.sum(axis=-1)


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
  """Labels as target distributions.

  Args:
    labels: class indices [b].
    num_classes: k.
    smoothing: share of the target spread evenly over all k classes.

  Returns:
    Targets [b, k]; each row adds up to 1.

  Source: Szegedy et al., 1512.00567, section 7.
  """
  return jax.nn.one_hot(labels, num_classes) * (1.0 - smoothing) + smoothing / num_classes


def softened_divergence(logits: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
  """Kullback-Leibler divergence from the teacher's softened probabilities, times temperature^2.

  Args:
    logits: the student's [b, k].
    teacher: the teacher's [b, k].
    temperature: both are divided by it.

  Returns:
    [b], float32.

  Source: Hinton et al., 1503.02531, section 2.
  """
  student = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
  target = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
  return temperature**2 * (jnp.exp(target) * (target - student)).sum(axis=-1)
