"""Which model is meant where a file holds several: a student and its teacher, EMA parameters."""

import logging
import re
from collections.abc import Collection

from vit_jax.errors import ConfigError, WeightsError, did_you_mean
from vit_jax.weights.containers.tensors import Tensors, View
from vit_jax.weights.mapping.family import FAMILIES

log = logging.getLogger(__name__)

# Of two models in a file the one that is used by convention, the other, and whose convention it is.
_CONVENTIONS = (
  (r'ema|averaged|shadow', r'', "EMA parameters are what training scripts' authors evaluate"),
  (r'teacher', r'student', 'of a student and its teacher, DINO, iBOT and DINOv2 use the teacher'),
  (r'', r'teacher', "beside a model lies its teacher's"),
  (
    r'img|image|visual|vision|image_encoder',
    r'txt|text|textual|language',
    'of two towers, that of images',
  ),
  (
    r'base|query|encoder_q|online',
    r'momentum|key|encoder_k|target',
    'momentum and target encoders serve training alone',
  ),
)


def choose(tensors: Tensors, naming: str, submodel: str = '') -> Tensors:
  """The tensors of the model that is meant; all of them where a file holds one model.

  Args:
    tensors: of the file.
    naming: of its arrays.
    submodel: what the user calls it: the prefix of its names, or a part of it that no other has.

  Raises:
    ConfigError: `submodel` names none.
    WeightsError: several models, of which none is used by convention.
  """
  found: list[str] = []
  for family in FAMILIES.values():
    if naming in family.tables:
      prefixes = family.table(naming, ()).prefixes(tensors)
      found = prefixes if len(prefixes) > len(found) else found
  names = {_name(prefix): prefix for prefix in found}
  if not submodel and len(names) < 2:
    return tensors
  chosen = names[_named(submodel, names, tensors) if submodel else _usual(names, tensors)]
  longer = tuple(p for p in found if p != chosen and p.startswith(chosen))
  kept = [n for n in tensors if n.startswith(chosen) and not (longer and n.startswith(longer))]
  return View(tensors, {name: (name, None) for name in kept})


def _named(submodel: str, names: Collection[str], tensors: Tensors) -> str:
  fitting = [n for n in names if n == submodel] or [
    n for n in names if submodel in re.split(r'[./]', n)
  ]
  if len(fitting) != 1:
    raise ConfigError(f'{tensors.path}, submodel={submodel!r}: {did_you_mean(submodel, names)}')
  return fitting[0]


def _usual(names: Collection[str], tensors: Tensors) -> str:
  """The one that is used by convention, of which a warning tells."""
  listed = ', '.join(names)
  for wanted, other, reason in _CONVENTIONS:
    good = [n for n in names if _says(n, wanted) and not (other and _says(n, other))]
    bad = [n for n in names if n not in good and (not other or _says(n, other))]
    if len(good) == 1 and len(bad) == len(names) - 1:
      log.warning(
        '%s holds %d models (%s): using %s, since %s; --submodel=NAME chooses another',
        tensors.path, len(names), listed, good[0], reason,
      )  # fmt: skip
      return good[0]
  raise WeightsError(
    f'{tensors.path} holds {len(names)} models ({listed}): choose one with --submodel=NAME '
    '(before vit_jax.main: by vit_jax.convert, which takes it too)'
  )


def _name(prefix: str) -> str:
  return prefix.strip('./') or 'top'


def _says(name: str, words: str) -> bool:
  """Whether a part of a prefix is one of the words, or begins or ends with it and a '_'."""
  if not words:
    return True
  return re.search(rf'(?:^|[._/])(?:{words})(?:$|[._/])', name) is not None
