"""A model that is ready to use: weights, preprocessing and class names in one object."""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import tasks, tree
from vit_jax.data import Preprocess, parse_transform
from vit_jax.errors import UserError, did_you_mean
from vit_jax.models.heads import backbone_of, by_name
from vit_jax.weights import loading, preprocessing
from vit_jax.weights.building import build
from vit_jax.weights.loading import fit
from vit_jax.weights.reading import read

# A small box in the middle of a picture, whose way through the transformation says where any goes.
_MARK = np.float32([0.5, 0.5, 0.01, 0.01])
_THREADS = min(8, os.cpu_count() or 1)


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One answer about a picture.

  Args:
    index: of the class.
    name: of the class; the index as text where classes have no names.
    probability: by softmax, or of this class on its own for a model of sigmoid losses.
    box: of the picture's object, whatever its class: centre x, centre y, width, height as shares of
      the upright picture; None for a model without boxes.
  """

  index: int
  name: str
  probability: float
  box: tuple[float, ...] | None = None


class Loaded:
  """A model with all that is needed to use it.

  Pictures are given as paths, encoded bytes, PIL images or uint8 arrays [h, w, c], of any sizes,
  alone or in a list; an array [b, h, w, c] is a list too. They are computed in batches of a few
  fixed sizes, so that another number of pictures compiles nothing.

  Args:
    module: the Flax module.
    variables: {'params': ..., 'batch_stats': ...}.
    config: {'model': {'name': ..., field: value}, ...}.
    classes: names in order; () where nobody gave them names.
    preprocess: how pictures become input.
    batch_size: most pictures that are computed at once.
  """

  def __init__(
    self,
    module: Any,
    variables: Mapping[str, Any],
    config: Mapping[str, Any],
    classes: Sequence[str],
    preprocess: Preprocess,
    batch_size: int = 32,
  ):
    self.module = module
    self.variables = variables
    self.config = dict(config)
    self.classes = tuple(classes)
    self.preprocess = preprocess
    self.batch_size = batch_size
    self._transform = parse_transform(preprocess.transform, train=False)
    self._on_device: Any = None

  def logits(self, images: Any) -> np.ndarray:
    """Logits [n, classes] in float32."""
    return self._run(self._compiled('outputs'), _as_list(images))['logits']

  def predict(
    self, images: Any, top_k: int = 5, on_error: str = 'raise'
  ) -> list[list[Prediction] | UserError]:
    """The likeliest classes of each picture.

    Args:
      images: see above.
      top_k: answers for each; at most as many as classes.
      on_error: 'raise', or 'return' to put the error in the place of a picture that cannot be read.

    Returns:
      For each picture its answers, the likeliest first.
    """
    if not self.module.num_classes:
      raise UserError('these weights have no classifier: use features(), or fine-tune them first')
    if top_k < 1:
      raise UserError(f'top_k must be positive, got {top_k}')
    images = _as_list(images)
    problems: dict[int, UserError] | None = {} if on_error == 'return' else None
    marks: list[np.ndarray] = []
    outputs = self._run(self._compiled('outputs'), images, problems, marks)
    boxes = [None] * len(marks)
    if 'box' in outputs:
      boxes = [_on_picture(box, mark) for box, mark in zip(outputs['box'], marks)]
    rows = zip(self._probabilities(outputs['logits']), boxes)
    return [
      problems[i] if problems and i in problems else self._answers(*next(rows), top_k)
      for i in range(len(images))
    ]

  def features(
    self, images: Any, what: str = 'pooled', problems: dict[int, UserError] | None = None
  ) -> np.ndarray:
    """Features of each picture.

    Args:
      images: see above.
      what: 'pooled' [n, d], what the head sees; 'grid' [n, h, w, d], the last features by place;
        'tokens' [n, tokens, d] after the last norm; or a block such as 'block_05' [n, tokens, d].
      problems: is given the error of each picture that cannot be read, by its place, and that
        picture is left out; None to raise it.
    """
    return self._run(self._compiled(what), _as_list(images), problems)

  def read(self, image: Any) -> np.ndarray:
    """One picture as the network's pixels: uint8 [h, w, c], before normalization."""
    return self._example(image)['image']

  def _example(self, image: Any) -> dict[str, Any]:
    """The transformed picture, with 'box' saying where _MARK has come to lie."""
    example = {'image': _content(image), 'id': _name(image), 'box': _MARK, 'has_box': True}
    with _named(_name(image)):
      return self._transform(example)

  def _probabilities(self, logits: np.ndarray) -> np.ndarray:
    if tasks.of_config(self.config, self.module.num_classes).loss == 'sigmoid':
      return np.asarray(jax.nn.sigmoid(logits))
    return np.asarray(jax.nn.softmax(logits, axis=-1))

  def _answers(self, probabilities: np.ndarray, box: Any, top_k: int) -> list[Prediction]:
    best = np.argsort(-probabilities, kind='stable')[:top_k]
    return [
      Prediction(int(i), self.classes[i] if self.classes else str(i), float(probabilities[i]), box)
      for i in best
    ]

  def _run(
    self,
    compute: Any,
    images: list,
    problems: dict[int, UserError] | None = None,
    marks: list[np.ndarray] | None = None,
  ) -> Any:
    """Computes in padded batches; unreadable pictures are left out and noted in `problems`.

    `marks` is given each picture's 'box' of `_example`.
    """
    if self._on_device is None:
      self._on_device = jax.device_put(self.variables)
    if not images:
      raise UserError('no pictures were given')
    parts = []
    for batch in self._batches(images, problems):
      size = next(s for s in self._sizes() if s >= len(batch))
      padded = np.zeros((size, *batch[0]['image'].shape), np.uint8)
      padded[: len(batch)] = [example['image'] for example in batch]
      found = compute(self._on_device, padded)
      parts.append(jax.tree.map(lambda x, n=len(batch): np.asarray(x)[:n], found))
      if marks is not None:
        marks += [example['box'] for example in batch]
    if not parts:
      size = self.preprocess.image_size
      channels = 1 if self.preprocess.channels == 'grey' else 3
      none = np.zeros((1, *size, channels), np.uint8)
      shapes = jax.eval_shape(compute, self.variables, none)
      return jax.tree.map(lambda s: np.zeros((0, *s.shape[1:]), s.dtype), shapes)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)

  def _sizes(self) -> list[int]:
    return sorted({1, min(8, self.batch_size), self.batch_size})

  def _batches(self, images: list, problems: dict | None) -> Iterator[list[dict]]:
    def attempt(image):
      try:
        return self._example(image)
      except UserError as e:
        if problems is None:
          raise
        return e

    waiting: list[dict] = []
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      # A few batches are read ahead, not all pictures at once.
      for start in range(0, len(images), 4 * self.batch_size):
        for i, found in enumerate(pool.map(attempt, images[start : start + 4 * self.batch_size])):
          if isinstance(found, UserError):
            problems[start + i] = found
            continue
          waiting.append(found)
          if len(waiting) == self.batch_size:
            yield waiting
            waiting = []
    if waiting:
      yield waiting

  @functools.lru_cache(maxsize=16)  # noqa: B019  a Loaded lives as long as its program
  def _compiled(self, what: str) -> Any:
    """A jitted function from variables and uint8 pictures to one of the outputs."""
    if what == 'outputs':
      return jax.jit(
        lambda v, x: by_name(self.module.apply(v, self.preprocess.normalize(x), train=False))
      )
    if what in ('pooled', 'grid'):
      body = backbone_of(self.module).clone(num_classes=None)

      def features(v, x):
        pooled, places = body.apply(v, self.preprocess.normalize(x), train=False)
        return pooled if what == 'pooled' else places.astype(jnp.float32)

      return jax.jit(features)

    def intermediates(v, x):
      x = self.preprocess.normalize(x)
      _, state = self.module.apply(v, x, train=False, mutable=['intermediates'])
      return {k: v[0] for k, v in tree.flatten(state['intermediates']).items()}

    size = self.preprocess.image_size
    channels = 1 if self.preprocess.channels == 'grey' else 3
    sample = jax.ShapeDtypeStruct((1, *size, channels), np.uint8)
    names = list(jax.eval_shape(intermediates, self.variables, sample))
    outputs = {n.split('/')[-2]: n for n in names if n.endswith('/output')}
    outputs |= {n: n for n in names if n == 'tokens'}
    if what not in outputs:
      raise UserError(f'features {what!r}: {did_you_mean(what, ["pooled", "grid", *outputs], 80)}')
    return jax.jit(lambda v, x: intermediates(v, x)[outputs[what]].astype(jnp.float32))


def load(
  path_or_name: str | pathlib.Path,
  *,
  model: str = '',
  image_size: tuple[int, int] | None = None,
  classes: Sequence[str] | None = None,
  preprocess: Preprocess | None = None,
  format: str = 'auto',
  pretrained_dir: str | pathlib.Path = '',
  batch_size: int = 32,
  **overrides: Any,
) -> Loaded:
  """Opens a run, a weights file or a zoo name for use; usually nothing else is needed.

  Args:
    path_or_name: a run's workdir, a checkpoint in it, a weights file or folder, or a zoo name.
    model: the model's name where the tensors do not tell (a DeiT and a ViT have the same).
    image_size: (h, w) to use instead of the weights' own.
    classes: class names where the weights have none.
    preprocess: how pictures become input, instead of what the weights say.
    format: of the file, one of `weights.tables.FORMATS`.
    pretrained_dir: a folder searched for named weights before any download.
    batch_size: most pictures that are computed at once.
    **overrides: fields of the model, such as dtype='bfloat16'.

  Raises:
    UserError: nothing there, or tensors and model do not fit.
  """
  weights = read(path_or_name, format, pretrained_dir=pretrained_dir)
  module = build(weights, model, **overrides)
  if module.num_classes:
    module = tasks.of_config(weights.config, module.num_classes).wrap(module)
  name = model or weights.model['name']
  preprocess = (
    preprocess or weights.preprocess or preprocessing.usual(name, weights.format, (224, 224))
  )
  if image_size is not None:
    preprocess = preprocessing.at_size(preprocess, image_size)
  variables, _ = fit(weights, module, preprocess.image_size)
  names = tuple(classes if classes is not None else weights.classes)
  if names and len(names) != module.num_classes:
    if classes is not None:
      raise UserError(f'{len(names)} class names for a model of {module.num_classes} classes')
    names = ()
  config = {**weights.config, 'model': loading.description(module, name)}
  return Loaded(module, variables, config, names, preprocess, batch_size)


def _as_list(images: Any) -> list:
  if isinstance(images, str | bytes | pathlib.PurePath) or hasattr(images, 'convert'):
    return [images]
  if isinstance(images, np.ndarray | jax.Array):
    images = np.asarray(images)
    return list(images) if images.ndim == 4 else [images]
  if isinstance(images, Iterable):
    return list(images)
  return [images]


def _on_picture(box: np.ndarray, mark: np.ndarray) -> tuple[float, ...]:
  """A box in what the model saw -> the same in the picture, given where _MARK came to lie there."""
  scale = _MARK[2:] / mark[2:]
  found = [*((box[:2] - mark[:2]) * scale + _MARK[:2]), *(box[2:] * scale)]
  return tuple(float(x) for x in found)


def _name(image: Any) -> str:
  return str(image) if isinstance(image, str | pathlib.PurePath) else f'a {type(image).__name__}'


def _content(image: Any) -> bytes | np.ndarray:
  """What the transformation takes: encoded bytes or pixels."""
  if isinstance(image, str | pathlib.PurePath):
    try:
      return pathlib.Path(image).read_bytes()
    except OSError as e:
      raise UserError(f'cannot read {image}: {e.strerror or e}') from e
  if isinstance(image, bytes):
    return image
  if hasattr(image, 'convert'):  # a PIL image
    if image.mode in ('RGB', 'L'):
      pixels = np.asarray(image)
    else:
      pixels = np.asarray(image.convert('RGB'))
    return pixels if pixels.ndim == 3 else pixels[..., None]
  pixels = np.asarray(image)
  if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
    raise UserError(
      f'a picture must be a path, bytes, a PIL image or uint8 [h, w, c]; got {pixels.dtype} '
      f'{pixels.shape}'
    )
  return pixels if pixels.ndim == 3 else pixels[..., None]


class _named:
  """Puts a picture's name into an error that lacks it."""

  def __init__(self, name: str):
    self.name = name

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if kind is not None and issubclass(kind, UserError) and self.name not in str(error):
      raise UserError([f'{self.name}: {p}' for p in error.problems]) from error
