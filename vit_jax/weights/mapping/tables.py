"""Which table converts which family of models to and from which format."""

from collections.abc import Callable, Collection
from typing import Any

from vit_jax.errors import UserError
from vit_jax.weights.mapping import cnn, kin, vit
from vit_jax.weights.mapping import unfit as _unfit
from vit_jax.weights.mapping.table import Table

FORMATS = ('npz', 'big_vision', 'timm', 'hf', 'keras', 'vit_jax')

TABLES: dict[tuple[str, str], Callable[[Collection[str]], Table]] = {
  ('ViT', 'npz'): vit.official,
  ('ViT', 'big_vision'): vit.big_vision,
  ('ViT', 'timm'): vit.timm,
  ('ViT', 'hf'): vit.hugging_face,
  ('CaiT', 'timm'): kin.cait,
  ('T2TViT', 'timm'): kin.t2t,
  ('Mixer', 'npz'): kin.mixer_official,
  ('Mixer', 'timm'): kin.mixer_timm,
  ('ResNet', 'timm'): cnn.resnet_timm,
  ('ResNet', 'keras'): cnn.resnet_keras,
  ('BiT', 'npz'): cnn.bit_official,
  ('BiT', 'timm'): cnn.bit_timm,
  ('MobileNetV2', 'timm'): cnn.mobilenet_timm,
  ('MobileNetV2', 'keras'): cnn.mobilenet_keras,
}


def find(family: str, format: str, names: Collection[str]) -> Table:
  """The table of a family of models in a format.

  Args:
    family: name of the model's class.
    format: one of FORMATS but 'vit_jax', which needs no table.
    names: flat names of the model's variables.

  Raises:
    UserError: nobody keeps such models in that format.
  """
  if (family, format) not in TABLES:
    formats = [f for c, f in TABLES if c == family] + ['vit_jax']
    raise UserError(f'{family} models have no {format!r} format; they have {", ".join(formats)}')
  return TABLES[family, format](names)


def unfit(family: str, format: str, module: Any) -> list[str]:
  """What a format cannot say about a model although its tensors have places there."""
  check = getattr(_unfit, family.lower(), None)
  return check(format, module) if check else []
