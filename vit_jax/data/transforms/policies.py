"""Policies: augmentations that draw operations and their strengths at random."""

import dataclasses
import functools
import logging

import numpy as np

from vit_jax.data.transforms.base import Op, arg, register
from vit_jax.data.transforms.operations import OPERATIONS, Operation, no_value

log = logging.getLogger(__name__)

_FOURTEEN = (
  'identity',
  'autocontrast',
  'equalize',
  'solarize',
  'posterize',
  'color',
  'contrast',
  'brightness',
  'sharpness',
  'rotate',
  'shear_x',
  'shear_y',
  'translate_x',
  'translate_y',
)
# The operations of each policy as published, in the order in which a random index selects them.
_PUBLISHED = {
  'randaugment': _FOURTEEN,
  'trivial_augment': _FOURTEEN,
  'randaugment_increasing': (
    'autocontrast',
    'equalize',
    'invert',
    'rotate',
    'posterize',
    'solarize',
    'solarize_add',
    'color',
    'contrast',
    'brightness',
    'sharpness',
    'shear_x',
    'shear_y',
    'translate_x',
    'translate_y',
  ),
}


def operations_of(policy: str) -> tuple[Operation, ...]:
  """The operations that a policy draws from: the published ones, then all others by name."""
  return _operations_of(policy, len(OPERATIONS))


@functools.cache
def _operations_of(policy: str, registered: int) -> tuple[Operation, ...]:
  """`operations_of` while so many are registered; gathering them anew for each image takes time."""
  published = _PUBLISHED[policy]
  added = sorted(n for n, o in OPERATIONS.items() if policy in o.ranges and n not in published)
  if added:
    log.info('%s draws, beside the published operations, %s', policy, ', '.join(added))
  return tuple(OPERATIONS[name] for name in (*published, *added))


def _sign(rng: np.random.Generator) -> int:
  return 1 if rng.random() < 0.5 else -1


@register('randaugment')
class RandAugment(Op):
  """Several operations of one magnitude, each drawn from the fourteen published ones.

  One of them is none; files of $VIT_JAX_PLUGINS may add to them.

  Args:
    layers: number of operations.
    magnitude: 0 to 30; 10 is the far end of AutoAugment's ranges. 0 still changes images: the
      colour operations are strongest there.

  Source: 1909.13719, figure 2.
  """

  random = True
  layers: int = arg('int', 2, low=1, high=100)
  magnitude: float = arg('float', 9.0, low=0, high=30)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    operations = operations_of('randaugment')
    for _ in range(self.layers):
      operation = operations[int(rng.integers(len(operations)))]
      value = operation.ranges['randaugment'](self.magnitude)
      example = operation(example, value * _sign(rng) if operation.geometric else value)
    return example


@register('randaugment_increasing')
class RandAugmentIncreasing(Op):
  """Several operations, each applied or not, whose strengths scatter about a magnitude; DeiT's.

  `randaugment_increasing(2, 9)` is what timm writes rand-m9-mstd0.5-inc1, but for the grey that
  fills what comes in from outside (timm: the mean colour) and for bilinear pixels throughout.

  Args:
    layers: number of operations drawn.
    magnitude: 0 to 10, mean strength.
    std: standard deviation of the strength, which is clipped to 0 and 10.
    p: probability that a drawn operation is applied.

  Source: DeiT (2012.12877), table 9; the operations and ranges are timm's.
  """

  random = True
  layers: int = arg('int', 2, low=1, high=100)
  magnitude: float = arg('float', 9.0, low=0, high=10)
  std: float = arg('float', 0.5, low=0, high=10)
  p: float = arg('float', 0.5, low=0, high=1)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    operations = operations_of('randaugment_increasing')
    for operation in [operations[i] for i in rng.integers(len(operations), size=self.layers)]:
      if rng.random() >= self.p:
        continue
      level = float(np.clip(rng.normal(self.magnitude, self.std), 0, 10)) / 10
      value = operation.ranges['randaugment_increasing'](level)
      if operation.geometric:
        value *= _sign(rng)
      elif operation.factor:
        value = max(0.1, 1 + value * _sign(rng))
      example = operation(example, value)
    return example


@register('trivial_augment')
class TrivialAugment(Op):
  """One operation of random strength: nothing to tune.

  Source: 2103.10158, algorithm 1, with the wide space; 31 strengths.
  """

  random = True

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    operations = operations_of('trivial_augment')
    operation = operations[int(rng.integers(len(operations)))]
    value_of = operation.ranges['trivial_augment']
    # No strength is drawn for an operation that takes no value.
    value = 0.0 if value_of is no_value else value_of(int(rng.integers(31)) / 30)
    if operation.geometric:
      value *= _sign(rng)
    elif operation.factor:
      value = 1 + value * _sign(rng)
    return operation(example, value)


@dataclasses.dataclass(frozen=True)
class AugReg:
  """One line of AugReg's table.

  Args:
    layers: RandAugment's number of operations; 0 is none.
    magnitude: RandAugment's magnitude.
    mixup: Mixup's alpha, for the training step.
  """

  layers: int
  magnitude: int
  mixup: float


# Source: 2106.10270, section 3.2.
AUGREG = {
  'none': AugReg(0, 0, 0.0),
  'light1': AugReg(2, 0, 0.0),
  'light2': AugReg(2, 10, 0.2),
  'medium1': AugReg(2, 15, 0.2),
  'medium2': AugReg(2, 15, 0.5),
  'strong1': AugReg(2, 20, 0.5),
  'strong2': AugReg(2, 20, 0.8),
}


@register('augreg')
class AugRegOp(Op):
  """RandAugment at one of AugReg's settings; the setting's Mixup is the training step's.

  Args:
    setting: 'none', 'light1', 'light2', 'medium1', 'medium2', 'strong1' or 'strong2'.

  Source: 2106.10270, section 3.2.
  """

  random = True
  setting: str = arg('name', choices=tuple(AUGREG))

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    line = AUGREG[self.setting]
    return RandAugment(line.layers, line.magnitude)(example, rng) if line.layers else example
