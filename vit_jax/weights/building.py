"""Builds the model that weights belong to."""

from typing import Any

import flax.linen as nn

from vit_jax import models
from vit_jax.errors import WeightsError
from vit_jax.weights.containers.checks import names_file
from vit_jax.weights.mapping.family import family_of_name
from vit_jax.weights.reading import Weights


def model_fields(weights: Weights | None, name: str, head: str = 'reset') -> dict[str, Any]:
  """Fields without which weights would compute something else in a model than where they are from.

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
  wanted = [*family_of_name(name).fixed_fields]
  if head == 'keep':
    wanted.append('representation_size')
  return {k: full[k] for k in wanted if k in full and k in valid and full[k] != valid[k]}


def build(
  weights: Weights,
  name: str = '',
  head: str = 'keep',
  num_classes: int | None = None,
  *,
  model_option: str = 'model',
  **overrides: Any,
) -> nn.Module:
  """The module that weights belong to.

  Args:
    weights: as `read` gives them.
    name: a model to use the weights for; '' for the one that they are of.
    head: 'keep' or 'reset', see `load_with_report`.
    num_classes: outputs; None for the weights' own.
    model_option: what names a model for the user, for messages: '--model'.
    **overrides: fields of the model.

  Raises:
    WeightsError: the model is not recognised and not named.
  """
  if num_classes is None:
    num_classes = weights.num_classes
  known = weights.model
  if not known and not name:
    raise WeightsError(
      f'{weights.tensors.path}: cannot tell which model these {len(weights.tensors)} tensors '
      f'({weights.format}) belong to; name it with {model_option}=NAME'
    )
  if not name or name == known.get('name'):
    fields = {k: v for k, v in known.items() if k != 'name'}
    if head == 'reset':
      fields.pop('representation_size', None)
    name = name or known['name']
  else:
    fields = model_fields(weights, name, head)
  with names_file(weights.tensors.path):
    return models.build(name, num_classes, **{**fields, **overrides})
