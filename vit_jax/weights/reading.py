"""Opens weights of any format: which one it is, which model it is, and what else is stated."""

import dataclasses
import difflib
import logging
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import models, remote, runtime, tree
from vit_jax.config import usable
from vit_jax.data import class_names
from vit_jax.data.preprocess import Preprocess
from vit_jax.data.trained_on import TrainedOn
from vit_jax.errors import ConfigError, WeightsError
from vit_jax.weights import hub, preprocessing
from vit_jax.weights.containers.base import CONTAINERS, Container
from vit_jax.weights.containers.checks import (
  check_file,
  damaged,
  fields_of,
  names_file,
  parse_json,
  read_json,
  what_is_it,
)
from vit_jax.weights.containers.tensors import Arrays, Merged, Tensors, checked
from vit_jax.weights.formats import base as formats
from vit_jax.weights.formats.base import FORMATS, OWN_NAMES
from vit_jax.weights.mapping import family, submodels
from vit_jax.weights.record import METADATA, Record, record_path

log = logging.getLogger(__name__)

_GOOGLE = ('npz', 'big_vision')  # namings of files that all take the same values of pixels
_DEPTHS = ('depth', 'class_depth', 'blocks', 'stem_blocks', 'repeats')  # fields of models
_MIN_DEPTH = 100  # that is never refused: a file may keep all blocks in one array
_OTHER_SIZE = (224, 224)  # of images, where neither arrays nor records show it


@dataclasses.dataclass
class Weights:
  """A weights file that is open: names and shapes are known, arrays are read when looked up.

  Args:
    format: one of `FORMATS`.
    tensors: foreign names to arrays.
    config: options of the run that made the weights, where it was one; else 'model' alone,
      {'name': ..., field: value}, which is empty where the model was not recognised.
    classes: names of the classes in order, () where they are not stated.
    preprocess: how images become input, or None.
    num_classes: outputs of the head, 0 without one.
    grid: (h, w) of the position embeddings, None where unknown.
    known: what is stated of the model beside its arrays, as in `Record`.
    states_preprocess: whether `preprocess` is stated, not what the model's authors used.
    step: of the run's checkpoint that was read, None of a file.
    trained_on: the images that they were trained on, as far as that is stated.
  """

  format: str
  tensors: Tensors
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  classes: tuple[str, ...] = ()
  preprocess: Preprocess | None = None
  num_classes: int = 0
  grid: tuple[int, int] | None = None
  known: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  states_preprocess: bool = True
  step: int | None = None
  trained_on: TrainedOn = TrainedOn()

  @property
  def model(self) -> dict[str, Any]:
    """{'name': ..., field: value} of the model, {} where it was not recognised."""
    return dict(self.config.get('model') or {})

  def preprocess_of(self, model: str, size: tuple[int, int] = _OTHER_SIZE) -> Preprocess:
    """Their own preprocessing, or that of the model's authors where none is stated.

    Args:
      model: a model's name.
      size: (h, w) of the images in the second case.
    """
    naming = FORMATS[self.format].naming
    return self.preprocess or family.family_of_name(model).preprocess(model, naming, size)

  def preprocess_for(
    self, model: str, input_range: tuple[float, float] | None = None
  ) -> Preprocess:
    """`preprocess_of` for use, which warns where it is an assumption.

    Args:
      model: a model's name.
      input_range: what pixels of 0 and 255 are to the model; None for what is stated or assumed.
    """
    preprocess = self.preprocess_of(model)
    if input_range is not None:
      return preprocessing.in_range(preprocess, *input_range)
    if not self.states_preprocess:
      log.warning(
        '%s does not state how images become its input: assuming %s, (x / 255 - %s) / %s, %s; '
        'where pixels were scaled otherwise, give --input_range=LOW,HIGH',
        self.tensors.path, preprocess.transform, _rounded(preprocess.mean),
        _rounded(preprocess.std), preprocess.channels,
      )  # fmt: skip
    return preprocess

  def classes_for(self, num_classes: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Class names for a model of so many outputs; () where there are none.

    Args:
      num_classes: outputs of the head.
      names: that the user gives; None for the weights' own, which are left out where they are of
        another number.

    Raises:
      ConfigError: the user's are of another number.
    """
    if names is None:
      return self.classes if len(self.classes) == num_classes else ()
    if len(names) != num_classes:
      raise ConfigError(
        f'{len(names)} class names for a model of {num_classes} classes ({self.tensors.path})'
      )
    return tuple(names)


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
  return tuple(round(value, 4) for value in values)


def _near(path: pathlib.Path) -> list[str]:
  """Names beside a path that are nearly its own."""
  try:
    return difflib.get_close_matches(path.name, os.listdir(path.parent), n=2, cutoff=0.7)
  except OSError:
    return []


def read(
  path_or_name: str | pathlib.Path,
  format: str = 'auto',
  *,
  pretrained_dir: str | pathlib.Path = '',
  cache_dir: str | pathlib.Path = '',
  submodel: str = '',
) -> Weights:
  """Opens weights without reading their arrays.

  Args:
    path_or_name: a file, a folder of a Hugging Face or timm model, a run's workdir, the URL of one
      of these, or a pretrained model name, which is downloaded when it is in no cache.
    format: one of `FORMATS`, or 'auto' to recognise it.
    pretrained_dir: a folder that is searched before any download, for a pretrained model's files
      and for a path that is not found from here.
    cache_dir: where downloads are kept; '' for the usual place.
    submodel: which of several models in a file, such as 'teacher'; '' where there is one, or for
      the one that is used by convention, of which a warning tells.

  Raises:
    ConfigError: no such format, pretrained model name or submodel.
    WeightsError: no such file, or no weights in it.
    DownloadError: no source gave the weights.
  """
  runtime.prepare_jax()
  if format != 'auto':
    FORMATS[format]  # raises for an unknown one
  name = remote.local(str(path_or_name))
  path = pathlib.Path(name)
  pretrained = hub.pretrained_models()
  places = [path]
  if pretrained_dir and name not in pretrained:
    places.append(hub.folder(pretrained_dir) / path)
  with damaged(path):  # a name may be too long
    here = next((place for place in places if place.exists()), None)
  if here is not None:
    return _open(here, format, submodel=submodel)
  if name not in pretrained:
    endings = tuple(ending for c in CONTAINERS.values() for ending in c.endings)
    if name.endswith(endings) or len(path.parts) > 1:
      nor = f', nor in pretrained_dir={pretrained_dir}' if pretrained_dir else ''
      near = [str(path.parent / found) for found in _near(path)]
      hint = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
      raise WeightsError(f'no weights at {path}{nor}{hint}')
  entry = pretrained[name]
  found = hub.fetch(name, pretrained_dir=pretrained_dir, cache_dir=cache_dir)
  return _open(found, format, _record_of(entry), submodel)


def needs_download(path_or_name: str | pathlib.Path, *, pretrained_dir: str = '') -> bool:
  """Whether `read` would download the weights first; False where it would raise an error."""
  name = str(path_or_name)
  if name not in hub.pretrained_models() or pathlib.Path(name).exists():
    return False
  try:
    return hub.local(name, pretrained_dir=pretrained_dir) is None
  except ConfigError:
    return False


def _record_of(entry: hub.PretrainedModel) -> Record:
  """What is known of a pretrained model where its file does not state it."""
  its_family = family.family_of_name(entry.model)
  size = (entry.resolution, entry.resolution)
  return Record(
    preprocess=its_family.preprocess(entry.model, '', size) if entry.resolution else None,
    known=its_family.pretrained_facts.get(entry.name, {}),
    hint=entry.model,
  )


def _open(path: pathlib.Path, format: str, known: Record = Record(), submodel: str = '') -> Weights:
  """Opens a path; `known` is used where the files state nothing."""
  with names_file(path):
    weights = _opened(path, format, known, submodel)
    _check_model(weights)
  return weights


def _check_model(weights: Weights) -> None:
  """Refuses a model that is far deeper than the file: to build it takes minutes."""
  if not weights.model:
    return
  fields = {**models.fields(weights.model['name']), **weights.model}
  depth = max(sum(_numbers(fields.get(field))) for field in _DEPTHS)
  if depth > max(_MIN_DEPTH, len(weights.tensors)):
    raise WeightsError(
      f'{weights.tensors.path}: a model with a depth of {depth:,} in {len(weights.tensors)} tensors'
    )


def _numbers(value: Any) -> Sequence[int]:
  return value if isinstance(value, tuple | list) else [value or 0]


def _opened(path: pathlib.Path, format: str, known: Record, submodel: str) -> Weights:
  if path.is_dir():
    for container in _by_rank():
      parts = [_open_part(container, file) for file in _files_of(path, container)]
      if parts:
        return _open_folder(path, parts, format, known, submodel)
    if submodel:
      raise ConfigError(f'{path} holds one model, none is called submodel={submodel!r}')
    return _open_run(path)
  tensors = open_file(path)
  # A file that is named without its folder has its config beside it all the same.
  if path.name in {c.folder_file for c in CONTAINERS.values()} - {''}:
    return _open_folder(path.absolute().parent, [tensors], format, known, submodel)
  record = _own_record(tensors) or Record()
  return _describe(tensors, format, record.over(known), path.name, submodel)


def _by_rank() -> list[Container]:
  return sorted(CONTAINERS.values(), key=lambda container: container.folder_rank)


def open_file(path: pathlib.Path) -> Tensors:
  """The tensors of a file in any container.

  Raises:
    WeightsError: it is in none, or damaged, or has no arrays.
  """
  check_file(path)
  with damaged(path), open(path, 'rb') as f:
    start = f.read(16)
  container = next((c for c in CONTAINERS.values() if c.recognises(path, start)), None)
  if container is None:
    endings = (e for c in CONTAINERS.values() for e in c.endings if path.name.endswith(e))
    raise WeightsError(f'{path} is not a {next(endings, "weights")} file: {what_is_it(path)}')
  tensors = checked(container.open(path))
  if not tensors:
    raise WeightsError(f'{path} holds no arrays')
  return tensors


def _open_part(container: Container, path: pathlib.Path) -> Tensors:
  check_file(path)
  return checked(container.open(path))


def _own_record(tensors: Tensors) -> Record | None:
  """What we wrote beside a file's arrays or among its texts; None for a foreign file."""
  content = read_json(record_path(tensors.path))
  if not content and METADATA in tensors.metadata:
    with damaged(tensors.path, '__metadata__'):
      content = parse_json(tensors.metadata[METADATA])
  return Record.from_json(content, tensors.path) if content else None


def _files_of(folder: pathlib.Path, container: Container) -> list[pathlib.Path]:
  """The files of a model's folder that are of a container: one, or those that an index lists."""
  if not container.folder_file:
    return []
  whole = folder / container.folder_file
  if whole.is_file():
    return [whole]
  index = folder / f'{container.folder_file}.index.json'
  if not index.is_file():
    return []
  content = read_json(index)
  with damaged(index, 'weight_map'):
    weight_map = fields_of(content, 'weight_map')
    names = sorted({fields_of({'part': part}, 'part', str) for part in weight_map.values()})
  if not names or any(re.search(r'^\.|[/\\:\0]|^$', name) for name in names):
    raise WeightsError(f'{index} does not list the parts of the weights')
  return [folder / name for name in names]


def _open_folder(
  folder: pathlib.Path, parts: list[Tensors], format: str, known: Record, submodel: str
) -> Weights:
  tensors = parts[0] if len(parts) == 1 else Merged(parts)
  record = _own_record(tensors)
  if record is None:
    # The format that the names show comes first, but its arrays may lie beside another's config.
    first = FORMATS[formats.recognise(list(tensors)) if format == 'auto' else format]
    for candidate in (first, *formats.in_order()):
      with damaged(folder, 'its config'):
        record = candidate.folder_record(folder)
      if record is not None:
        break
  return _describe(tensors, format, (record or Record()).over(known), folder.name, submodel)


def _open_run(path: pathlib.Path) -> Weights:
  from vit_jax import checkpoint  # orbax, which is slow to import

  if not checkpoint.is_run(str(path)):
    expected = ', '.join(c.folder_file for c in _by_rank() if c.folder_file)
    raise WeightsError(f'{path} holds neither a run nor weights (expected one of {expected})')
  run = checkpoint.load_run(str(path))
  tensors = Arrays(tree.flatten(run.variables), path)
  head = next((s.shape[-1] for n, s in tensors.specs.items() if n == 'params/head/bias'), 0)
  preprocess = Preprocess.from_json(run.preprocess)
  return Weights(
    OWN_NAMES,
    tensors,
    config=usable(run.config),
    classes=tuple(run.classes),
    preprocess=preprocess,
    num_classes=len(run.classes) or head,
    grid=_grid(run.config['model'], preprocess),
    step=run.step,
    trained_on=TrainedOn.of_run(run.workdir, run.config),
  )


def _grid(model: dict[str, Any], preprocess: Preprocess | None) -> tuple[int, int] | None:
  """Patches (h, w) of a model's images; None where it has none or nothing is known of them."""
  patch = {**models.fields(model['name']), **model}.get('patch_size') if model else None
  if patch is None or preprocess is None:
    return None
  h, w = preprocess.image_size
  return h // patch[0], w // patch[1]


def _describe(
  tensors: Tensors, format: str, record: Record, file_name: str, submodel: str
) -> Weights:
  """Puts together what the tensors show and what is stated beside them."""
  if format == 'auto':
    format = record.format or formats.recognise(list(tensors))
  naming = FORMATS[format].naming
  if record.config is None and (stated := FORMATS[format].file_record(tensors)):
    record = stated.over(record)
  if record.preprocess is not None:
    preprocessing.check(record.preprocess, str(tensors.path))
  tensors = FORMATS[format].canonical(tensors)
  own = record.config is not None or naming == OWN_NAMES
  if own and submodel:
    raise ConfigError(f'{tensors.path} holds one model, none is called submodel={submodel!r}')
  if not own:
    tensors = submodels.choose(tensors, naming, submodel)
  weights = Weights(format, tensors, classes=record.classes, preprocess=record.preprocess)
  weights.known = record.known
  weights.trained_on = TrainedOn(tensors.path, record.trained_on)
  weights.states_preprocess = record.preprocess is not None or naming in _GOOGLE
  if record.config is not None:  # our own record states everything
    weights.config = usable(record.config)
    weights.num_classes = record.num_classes
    if fields := weights.model:  # as it can be built
      models.build(fields.pop('name'), weights.num_classes, **fields)
    weights.grid = record.grid or _grid(weights.model, record.preprocess)
    return weights
  if naming == OWN_NAMES:
    return weights
  hint = f'{record.hint} {file_name}'
  found = family.recognise(tensors, naming, hint, record.known)
  if found is None:
    return weights  # a model that is given by name may fit all the same
  weights.config = {'model': found.model, **({'task': dict(record.task)} if record.task else {})}
  weights.num_classes, weights.grid = found.num_classes, found.grid
  if found.num_classes == 1 and not record.task:
    log.warning(
      '%s has one output: by softmax its probability is always 1. A sigmoid of one logit z is the '
      'softmax of (0, z)', tensors.path,
    )  # fmt: skip
  if found.num_classes and weights.classes and len(weights.classes) != found.num_classes:
    log.warning(
      '%s states %d class names and has %d outputs: the names are left out; give others with '
      '--classes=FILE', tensors.path, len(weights.classes), found.num_classes,
    )  # fmt: skip
    weights.classes = ()
  elif not weights.classes:
    weights.classes = class_names.by_count(found.num_classes)
  if weights.preprocess is None:
    size = record.known.get('image_size')
    weights.preprocess = found.preprocess or weights.preprocess_of(
      found.model['name'], size or _image_size(weights)
    )
    if size and naming == 'keras':  # whose loaders squash images, by what filter is not stated
      squashed = preprocessing.Crop(size, 'bicubic', scaled=size).transform()
      weights.preprocess = dataclasses.replace(weights.preprocess, transform=squashed)
  return weights


def _image_size(weights: Weights) -> tuple[int, int]:
  """(h, w) in pixels of the images that the position embeddings are for."""
  if not weights.grid:
    return _OTHER_SIZE
  fields = models.fields(weights.model['name'])
  patch = weights.model.get('patch_size') or fields.get('patch_size', (16, 16))
  return weights.grid[0] * patch[0], weights.grid[1] * patch[1]
