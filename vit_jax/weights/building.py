"""Builds the model that weights belong to."""

from typing import Any

from vit_jax import models
from vit_jax.errors import UserError
from vit_jax.weights.reading import Weights

# Fields of a model that follow from weights: without them the same arrays compute something else.
FIXED_FIELDS = (
  'conv_bias',
  'kernel_epsilon',
  'padding',
  'query_scale',
  'stride_in_conv',
  'tokens',
  'gelu',
  'layer_scale',
  'norm_epsilon',
  'num_registers',
  'pool',
  'position_embedding',
  'position_for_class_token',
  'qk_norm',
  'qkv_bias',
  'stem_epsilon',
  'stem_epsilon_in_variance',
  'stem_weight_epsilon',
)


def model_fields(weights: Weights | None, name: str, head: str = 'reset') -> dict[str, Any]:
  """Fields that a model must have for weights to mean in it what they mean where they come from.

  Args:
    weights: as `read` gives them; None for none.
    name: the model that is going to be built.
    head: with 'keep', a pre-logits layer belongs to what is kept.

  Returns:
    Overrides for `models.build(name)`, those alone that differ from its own values.
  """
  if weights is None or not weights.model:
    return {}
  valid = models.fields(name)
  source = weights.model
  full = {**models.fields(source.pop('name')), **source}
  wanted = [*FIXED_FIELDS, *(('representation_size',) if head == 'keep' else ())]
  return {k: full[k] for k in wanted if k in full and k in valid and full[k] != valid[k]}


def build(
  weights: Weights,
  name: str = '',
  head: str = 'keep',
  num_classes: int | None = None,
  **overrides: Any,
) -> Any:
  """The module that weights belong to.

  Args:
    weights: as `read` gives them.
    name: a model where the weights are to be taken for that one; '' for the one they say.
    head: 'keep' or 'reset', see `load_with_report`.
    num_classes: outputs; None for the weights' own.
    **overrides: fields of the model.

  Raises:
    UserError: the model is not recognised and not named.
  """
  if num_classes is None:
    num_classes = weights.num_classes
  known = weights.model
  if not known and not name:
    raise UserError(
      f'{weights.tensors.path}: cannot tell which model these {len(weights.tensors)} tensors '
      f'({weights.format}) belong to; name it with model=... (--model)'
    )
  if not name or name == known.get('name'):
    fields = {k: v for k, v in known.items() if k != 'name'}
    if head == 'reset':
      fields.pop('representation_size', None)
    name = name or known['name']
  else:
    fields = model_fields(weights, name, head)
  return models.build(name, num_classes, **{**fields, **overrides})
