"""What a family of models is to foreign weights, and the registry of families."""

import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import numpy as np

from vit_jax.data.preprocess import Preprocess
from vit_jax.errors import WeightsError, did_you_mean
from vit_jax.models.base import MODELS
from vit_jax.registry import Registry
from vit_jax.weights import preprocessing
from vit_jax.weights.containers.tensors import Tensors
from vit_jax.weights.mapping.recognition import Evidence, Recognised, our_shapes
from vit_jax.weights.mapping.table import Table

# From our names, those at least on which the rules depend (see `Family.variants`), to a table.
TableOf = Callable[[Collection[str]], Table]


class Family:
  """All that is known of foreign weights of one class of models.

  Attributes:
    name: the class of the models.
    tables: by naming of arrays, such as 'npz' or 'timm'.
    signs: parts of foreign names that this family alone has, in any naming.
    variants: part of a foreign name -> ours: what tells members apart whose rules differ.
    fixed_fields: of the models, without which the same arrays compute something else.
    keras_layers: (kind, name) of the model in keras.applications, in its order; () without one.
    pretrained_facts: what arrays do not show, by pretrained model name and field.
    fallback: whether a family of so common arrays that all others are tried first.
  """

  name: ClassVar[str] = ''
  tables: ClassVar[Mapping[str, TableOf]] = {}
  signs: ClassVar[tuple[str, ...]] = ()
  variants: ClassVar[Mapping[str, str]] = {}
  fixed_fields: ClassVar[tuple[str, ...]] = ('gelu', 'norm_epsilon')
  keras_layers: ClassVar[tuple[tuple[str, str], ...]] = ()
  pretrained_facts: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
  fallback: ClassVar[bool] = False

  def table(self, naming: str, our_names: Collection[str]) -> Table:
    """The rules of a naming.

    Raises:
      WeightsError: the family has no such naming.
    """
    if naming not in self.tables:
      raise WeightsError(
        f'{self.name} models have no {naming!r} format; they have '
        f'{", ".join([*self.tables, "vit_jax"])}'
      )
    return self.tables[naming](our_names)

  def recognises(self, names: Collection[str]) -> bool:
    """Whether arrays of these names may be of a model of this family."""
    # A hybrid's stem has the names of a ResNet, below its own prefix.
    return any(sign in name for name in names if 'patch_embed.' not in name for sign in self.signs)

  def model_of(self, file: Evidence) -> Recognised | None:
    """The member whose arrays these are, None if it is none; `num_classes` is filled in later.

    A lookup that fails (KeyError, IndexError, ValueError, TypeError) means None too: the first
    arrays are missing or misshapen.
    """
    raise NotImplementedError

  def problems(self, naming: str, module: nn.Module) -> list[str]:
    """What a format cannot say about a model although its arrays have places there."""
    return []

  def to_write(
    self,
    arrays: Mapping[str, np.ndarray],
    naming: str,
    module: nn.Module,
    image_size: tuple[int, int],
  ) -> dict[str, np.ndarray]:
    """Our arrays, by flat names, as a naming keeps them: adapted, or with computed ones added."""
    return dict(arrays)

  def extra_tensors(
    self, naming: str, module: nn.Module, image_size: tuple[int, int]
  ) -> dict[str, np.ndarray]:
    """Foreign tensors that are written though our models have none."""
    return {}

  def preprocess(self, model: str, naming: str, size: tuple[int, int]) -> Preprocess:
    """How the authors evaluated a model, for weights that do not state it.

    Args:
      model: its name.
      naming: of the arrays, '' where it does not matter.
      size: (h, w) of the images.
    """
    return preprocessing.imagenet(size)

  def timm_architecture(
    self, module: nn.Module, name: str, image_size: tuple[int, int]
  ) -> tuple[str, dict[str, Any]]:
    """timm's architecture and the arguments that make it the same as a module of ours.

    Args:
      module: a model.
      name: the name that it was built by.
      image_size: (h, w) in pixels.

    Raises:
      WeightsError: timm has no such model.
    """
    raise WeightsError(
      f'timm has no {self.name} models: write a .safetensors file instead of a folder'
    )

  def hf_config(
    self, module: nn.Module, image_size: tuple[int, int], channels: int
  ) -> dict[str, Any]:
    """The fields of Hugging Face's config.json that describe the architecture."""
    raise WeightsError(f'Hugging Face has no {self.name} models that are known here')


log = logging.getLogger(__name__)

FAMILIES: Registry[Family] = Registry('family of models', 'vit_jax.weights.mapping')


def register(family_class: type[Family]) -> type[Family]:
  """Adds a family to `FAMILIES` under its name; a class decorator."""
  FAMILIES.add(family_class.name, family_class())
  return family_class


def family_of(module: nn.Module | type[nn.Module]) -> Family:
  """The family of a model.

  Raises:
    WeightsError: foreign weights of such models are unknown here.
  """
  name = (module if isinstance(module, type) else type(module)).__name__
  if name not in FAMILIES:
    raise WeightsError(
      f'{name} models have no foreign format, only vit_jax: no Family in vit_jax.weights.mapping '
      f'has that name, {did_you_mean(name, FAMILIES)}'
    )
  return FAMILIES[name]


def family_of_name(model: str) -> Family:
  """The family of a registered model; one without foreign weights gets the usual of a family."""
  module = MODELS[model].module
  return family_of(module) if module.__name__ in FAMILIES else Family()


def recognise(
  tensors: Tensors,
  naming: str,
  hint: str = '',
  known: Mapping[str, Any] | None = None,
) -> Recognised | None:
  """The model that a file's tensors belong to; None where no registered one fits.

  Args:
    tensors: of the file.
    naming: of its arrays, another one than our own.
    hint, known: see `Evidence`.
  """
  failed = []
  for family in sorted(FAMILIES.values(), key=lambda f: f.fallback):
    if naming not in family.tables or not family.recognises(tensors):
      continue
    variant = [ours for sign, ours in family.variants.items() if any(sign in n for n in tensors)]
    shapes = our_shapes(family.table(naming, variant), tensors)
    try:
      found = family.model_of(Evidence(tensors, naming, shapes, known or {}, hint.lower()))
    except (KeyError, IndexError, ValueError, TypeError) as e:
      failed.append(f'{family.name}: {type(e).__name__} {e}')
      continue
    if found is not None:
      num_classes = math.prod(shapes.get('params/head/bias', (0,)))
      return dataclasses.replace(found, num_classes=num_classes)
  if failed:
    log.warning('names as in %s, which these arrays do not make', '; '.join(failed))
  return None
