"""From a model's variables to a file of any format, with what is needed to use it there."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from vit_jax import tree
from vit_jax.data.preprocess import Preprocess
from vit_jax.errors import WeightsError, some
from vit_jax.weights.formats.base import FORMATS, OWN_NAMES, Export
from vit_jax.weights.mapping import rules
from vit_jax.weights.mapping.family import family_of
from vit_jax.weights.record import Record


def to_tensors(
  variables: Mapping[str, Any], module: nn.Module, format: str, image_size: tuple[int, int]
) -> dict[str, np.ndarray]:
  """The tensors of a format, under its names.

  Args:
    variables: {'params': ..., 'batch_stats': ...}.
    module: the model that they belong to.
    format: one of `FORMATS`.
    image_size: (h, w) in pixels, of the position embeddings.

  Raises:
    WeightsError: the model has what the format cannot hold.
  """
  naming = FORMATS[format].naming
  arrays = {k: np.asarray(v) for k, v in tree.flatten(variables).items()}
  if naming == OWN_NAMES:
    return arrays
  family = family_of(module)
  arrays = family.to_write(arrays, naming, module, image_size)
  bindings, orphans = rules.bind(family.table(naming, arrays).rules, arrays)
  problems = family.problems(naming, module)
  if orphans:
    problems.append(
      f'the {format} format has no place for {some(orphans, 4)}: no rule of '
      f'{type(family).__module__} has these names'
    )
  if problems:
    raise WeightsError(problems)
  result: dict[str, np.ndarray] = {}
  for binding in bindings:
    result.update(zip(binding.theirs, binding.to_theirs([arrays[n] for n in binding.ours])))
  return result | family.extra_tensors(naming, module, image_size)


def write(
  target: str | pathlib.Path,
  variables: Mapping[str, Any],
  module: nn.Module,
  format: str,
  *,
  model: Mapping[str, Any],
  classes: Sequence[str] = (),
  preprocess: Preprocess,
  config: Mapping[str, Any] | None = None,
  trained_on: Mapping[str, str] | None = None,
) -> list[pathlib.Path]:
  """Writes weights with their class names and preprocessing, in place of an older target.

  Args:
    target: a file; a folder for 'hf', and for 'timm' where it does not end in .safetensors.
    variables: {'params': ..., 'batch_stats': ...}.
    module: the model that they belong to.
    format: one of `FORMATS`.
    model: {'name': ..., field: value} that builds the module.
    classes: names in order.
    preprocess: how images become input.
    config: more options of the run that made the weights.
    trained_on: digests of the images that they were trained on, see `data.trained_on.TrainedOn`.

  Returns:
    The files written.

  Raises:
    ConfigError: no such format, or a target whose ending is that of another one.
    WeightsError: the format cannot hold this.
    StorageError: the target cannot be written.
  """
  export = export_of(
    variables,
    module,
    format,
    model=model,
    classes=classes,
    preprocess=preprocess,
    config=config,
    trained_on=trained_on,
  )
  FORMATS[format].check_name(str(target))
  return FORMATS[format].write(pathlib.Path(target), export)


def export_of(
  variables: Mapping[str, Any],
  module: nn.Module,
  format: str,
  *,
  model: Mapping[str, Any],
  classes: Sequence[str] = (),
  preprocess: Preprocess,
  config: Mapping[str, Any] | None = None,
  trained_on: Mapping[str, str] | None = None,
) -> Export:
  """What `write` writes; arguments as there."""
  tensors = to_tensors(variables, module, format, preprocess.image_size)
  h, w = preprocess.image_size
  patch = getattr(module, 'patch_size', None)
  record = Record(
    format=format,
    config={**(config or {}), 'model': dict(model)},
    num_classes=module.num_classes,
    classes=tuple(classes),
    preprocess=preprocess,
    grid=(h // patch[0], w // patch[1]) if patch else None,
    trained_on=trained_on or {},
  )
  return Export(tensors, record, module, preprocess)
