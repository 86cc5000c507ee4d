"""A model that is ready to use: weights, preprocessing and class names in one object."""

import concurrent.futures
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import kernels, machine, runtime, tasks, tree
from vit_jax.data import Preprocess, parse_transform
from vit_jax.data.trained_on import TrainedOn
from vit_jax.errors import (
  ConfigError,
  ImageError,
  UserError,
  WeightsError,
  did_you_mean,
  dimensions,
  some,
)
from vit_jax.inference.images import as_list, content_of, name_of, named
from vit_jax.logits import probabilities
from vit_jax.models.heads import backbone_of
from vit_jax.models.shapes import description
from vit_jax.weights import preprocessing
from vit_jax.weights.building import build
from vit_jax.weights.formats.base import FORMATS, OWN_NAMES
from vit_jax.weights.loading import Options, fit
from vit_jax.weights.reading import read
from vit_jax.weights.saving import write

log = logging.getLogger(__name__)

# A small box in the middle of an image; where the transform moves it says where any box comes from.
_MARK = np.array([0.5, 0.5, 0.01, 0.01], np.float32)
_THREADS = min(8, machine.cores())


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One class predicted for an image.

  Attributes:
    index: of the class.
    name: of the class; the index as text where classes have no names.
    probability: by softmax, or of this class on its own for a model of sigmoid losses.
    box: of the image's object, whatever its class: centre x, centre y, width, height as shares of
      the upright image; None for a model without boxes.
  """

  index: int
  name: str
  probability: float
  box: tuple[float, ...] | None = None


class Loaded:
  """A model with all that is needed to use it.

  Images are given as paths, encoded bytes, files opened in binary mode, PIL images or arrays
  [h, w] or [h, w, c] (of integers or of floats from 0 to 1 or to 255), of any sizes, alone or in a
  list; an array [b, h, w, c] is a list too. Whichever way it is given, an image has the same
  pixels. They are computed in batches of a few fixed sizes, so that another number of images
  compiles nothing.

  Args:
    module: the Flax module.
    variables: {'params': ..., 'batch_stats': ...}.
    config: {'model': {'name': ..., field: value}, ...}.
    classes: names in order; () where there are none.
    preprocess: from images to input.
    batch_size: most images that are computed at once.
    step: of the run's checkpoint that was read, None where there was none.
    trained_on: the images that it was trained on, as far as that is stated.
  """

  def __init__(
    self,
    module: Any,
    variables: Mapping[str, Any],
    config: Mapping[str, Any],
    classes: Sequence[str],
    preprocess: Preprocess,
    batch_size: int = 32,
    step: int | None = None,
    trained_on: TrainedOn = TrainedOn(),
  ):
    self.module = module
    self.variables = variables
    self.config = dict(config)
    self.classes = tuple(classes)
    self.preprocess = preprocess
    self.batch_size = batch_size
    self.step = step
    self.trained_on = trained_on
    self._transform = parse_transform(preprocess.transform, train=False)
    self._on_device: Any = None
    runtime.prepare_jax()

  @property
  def task(self) -> tasks.Task:
    """What the model learned."""
    return tasks.of_config(self.config, self.module.num_classes or 0)

  @property
  def fixed_batch_size(self) -> int | None:
    """The size of every batch; None where there may be any."""
    return None

  @property
  def activation(self) -> str:
    """How logits become probabilities: 'softmax', or 'sigmoid' for each class on its own."""
    return self.task.activation

  def logits(self, images: Any) -> np.ndarray:
    """Logits [n, classes] in float32."""
    return self._run(self._compiled('outputs'), as_list(images))['logits']

  def predict(
    self, images: Any, top_k: int = 5, on_error: str = 'raise'
  ) -> list[list[Prediction] | UserError]:
    """The most probable classes of each image.

    Args:
      images: see above.
      top_k: classes for each; at most as many as there are.
      on_error: 'raise', or 'return' to put the error in the place of an image that cannot be read.

    Returns:
      For each image its predictions, the most probable first.
    """
    self.check_classifier()
    if top_k < 1:
      raise ConfigError(f'top_k must be positive, got {top_k}')
    images = as_list(images)
    problems: dict[int, UserError] | None = {} if on_error == 'return' else None
    marks: list[np.ndarray] = []
    outputs = self._run(self._compiled('outputs'), images, problems, marks)
    found = iter(self.ranked(outputs, marks, top_k))
    return [problems[i] if problems and i in problems else next(found) for i in range(len(images))]

  def check_classifier(self) -> None:
    """Raises a `WeightsError` where the model predicts no classes."""
    if not self.module.num_classes:
      raise WeightsError(
        'these weights have no classifier: use features(), or fine-tune them first'
      )

  def example(self, image: Any) -> dict[str, Any]:
    """One image as `outputs` takes it: 'image' as of `read`, 'box' where a mark has moved to."""
    example = {'image': content_of(image), 'id': name_of(image), 'box': _MARK, 'has_box': True}
    with named(name_of(image)):
      return self._transform(example)

  def outputs(self, examples: Sequence[Mapping[str, Any]], size: int) -> dict[str, np.ndarray]:
    """What the model gives for examples of `example`, computed as one batch.

    Args:
      examples: of which there are at most `size`.
      size: of the batch; each is compiled once.

    Returns:
      'logits' [n, classes], and 'box' [n, 4] in the model's input where it has boxes.
    """
    return self._padded(self._compiled('outputs'), examples, size)

  def ranked(
    self, outputs: Mapping[str, np.ndarray], marks: Sequence[np.ndarray], top_k: int
  ) -> list[list[Prediction]]:
    """The most probable classes of each image.

    Args:
      outputs: of `outputs`.
      marks: 'box' of each example.
      top_k: classes for each; at most as many as there are.
    """
    boxes: list[tuple[float, ...] | None] = [None] * len(marks)
    if 'box' in outputs:
      boxes = [_in_image(box, mark) for box, mark in zip(outputs['box'], marks)]
    logits = outputs['logits']
    rows = zip(logits, probabilities(logits, self.activation), boxes)
    return [self._top(*row, top_k) for row in rows]

  def features(
    self, images: Any, what: str = 'pooled', problems: dict[int, UserError] | None = None
  ) -> np.ndarray:
    """Features of each image.

    Args:
      images: see above.
      what: 'pooled' [n, d], the input of the head; 'grid' [n, h, w, d], the last features of the
        patches; 'tokens' [n, tokens, d] after the last norm; or a block such as 'block_05'
        [n, tokens, d].
      problems: receives the error of each image that cannot be read, by its index, and that image
        is left out; None to raise it.
    """
    return self._run(self._compiled(what), as_list(images), problems)

  def read(self, image: Any) -> np.ndarray:
    """One image as the network's pixels: uint8 [h, w, c], before normalization."""
    return self.example(image)['image']

  def save(self, target: str | pathlib.Path, format: str = 'vit_jax') -> list[pathlib.Path]:
    """Writes the weights with class names and preprocessing, to be opened here or elsewhere.

    Args:
      target: a file; a folder for 'hf', and for 'timm' where it does not end in .safetensors.
      format: 'vit_jax', 'npz', 'timm', 'hf' or 'big_vision'.

    Returns:
      The files written.

    Raises:
      ConfigError: no such format.
      WeightsError: the format cannot hold this model.
      StorageError: the target cannot be written.
    """
    naming = FORMATS[format].naming
    if backbone_of(self.module) is not self.module and naming != OWN_NAMES:
      raise WeightsError(f"this model has heads that {format} has no place for: save as 'vit_jax'")
    return write(
      target,
      self.variables,
      self.module,
      format,
      model=self.config['model'],
      classes=self.classes,
      preprocess=self.preprocess,
      config={name: value for name, value in self.config.items() if name != 'model'},
      trained_on=self.trained_on.images(),
    )

  def _top(
    self,
    logits: np.ndarray,
    probabilities: np.ndarray,
    box: tuple[float, ...] | None,
    top_k: int,
  ) -> list[Prediction]:
    # By logits, as reports and metrics rank them: probabilities near 1 round to the same number.
    best = np.argsort(-logits, kind='stable')[:top_k]
    return [
      Prediction(int(i), self.classes[i] if self.classes else str(i), float(probabilities[i]), box)
      for i in best
    ]

  def _run(
    self,
    compute: Callable,
    images: list,
    problems: dict[int, UserError] | None = None,
    marks: list[np.ndarray] | None = None,
  ) -> Any:
    """Computes in padded batches; unreadable images are left out and put into `problems`.

    `marks` receives each image's 'box' of `example`.
    """
    if not images:
      raise ImageError('no images were given')
    parts = []
    for batch in self._batches(images, problems):
      size = next(s for s in self._sizes() if s >= len(batch))
      parts.append(self._padded(compute, batch, size))
      if marks is not None:
        marks += [example['box'] for example in batch]
    if not parts:
      shapes = jax.eval_shape(compute, self.variables, self._input_shape(np.uint8))
      return jax.tree.map(lambda s: np.zeros((0, *s.shape[1:]), s.dtype), shapes)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)

  def _padded(self, compute: Callable, examples: Sequence[Mapping[str, Any]], size: int) -> Any:
    if self._on_device is None:
      self._on_device = jax.device_put(self.variables)
    padded = np.zeros((size, *examples[0]['image'].shape), np.uint8)
    padded[: len(examples)] = [example['image'] for example in examples]
    found = compute(self._on_device, jax.block_until_ready(jax.device_put(padded)))
    return jax.tree.map(lambda x: np.asarray(x)[: len(examples)], found)

  def _sizes(self) -> list[int]:
    fixed = self.fixed_batch_size
    return [fixed] if fixed else sorted({1, min(8, self.batch_size), self.batch_size})

  def _input_shape(self, dtype: Any) -> jax.ShapeDtypeStruct:
    channels = 1 if self.preprocess.channels == 'grey' else 3
    return jax.ShapeDtypeStruct((1, *self.preprocess.image_size, channels), dtype)

  def _batches(
    self, images: list, problems: dict[int, UserError] | None
  ) -> Iterator[list[dict[str, Any]]]:
    def attempt(image: Any) -> dict[str, Any] | UserError:
      try:
        return self.example(image)
      except UserError as e:
        if problems is None:
          raise
        return e

    waiting: list[dict[str, Any]] = []
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      # A few batches are read ahead, not all images at once.
      for start in range(0, len(images), 4 * self.batch_size):
        for i, found in enumerate(pool.map(attempt, images[start : start + 4 * self.batch_size])):
          if isinstance(found, UserError):
            assert problems is not None
            problems[start + i] = found
            continue
          waiting.append(found)
          if len(waiting) == self.batch_size:
            yield waiting
            waiting = []
    if waiting:
      yield waiting

  @functools.lru_cache(maxsize=16)  # noqa: B019  a Loaded lives as long as its program
  def _compiled(self, what: str) -> Callable:
    """A jitted function from variables and uint8 images to one of the outputs."""
    if what == 'outputs':
      return kernels.jit(lambda v, x: self.task.outputs_by_name(self._apply(self.module, v, x)))
    if what in ('pooled', 'grid'):
      body = backbone_of(self.module).clone(num_classes=None)

      def features(v: Any, x: jax.Array) -> jax.Array:
        pooled, patches = self._apply(body, v, x)
        return pooled if what == 'pooled' else patches.astype(jnp.float32)

      return kernels.jit(features)

    def intermediates(v: Any, x: jax.Array) -> dict[str, jax.Array]:
      _, state = self._apply(self.module, v, x, mutable=['intermediates'])
      return {k: v[0] for k, v in tree.flatten(state['intermediates']).items()}

    names = list(jax.eval_shape(intermediates, self.variables, self._input_shape(np.uint8)))
    outputs = {n.split('/')[-2]: n for n in names if n.endswith('/output')}
    outputs |= {n: n for n in names if n == 'tokens'}
    if what not in outputs:
      near = did_you_mean(what, ['pooled', 'grid', *outputs], 80)
      raise ConfigError(f'features {what!r}: {near}')
    return kernels.jit(lambda v, x: intermediates(v, x)[outputs[what]].astype(jnp.float32))

  def _apply(self, module: nn.Module, variables: Any, images: jax.Array, **options: Any) -> Any:
    return module.apply(variables, self.preprocess.normalize(images), train=False, **options)


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
  submodel: str = '',
  input_range: tuple[float, float] | None = None,
  allow_invalid: bool = False,
  model_option: str = 'model',
  **overrides: Any,
) -> Loaded:
  """Opens a run, a weights file or a pretrained model for use; usually nothing else is needed.

  Args:
    path_or_name: a run's workdir, a checkpoint in it, a weights file or folder, or a pretrained
      model name.
    model: the model's name where the tensors do not tell (a DeiT and a ViT have the same).
    image_size: (h, w) to use instead of the weights' own.
    classes: class names where the weights have none.
    preprocess: from images to input, instead of what the weights say.
    format: of the file, one of `weights.formats.base.FORMATS`.
    pretrained_dir: a folder searched for named weights before any download.
    batch_size: most images that are computed at once.
    submodel: which of several models in a file, such as 'teacher'.
    input_range: what pixels of 0 and 255 are to the model, such as (-1, 1), where the weights do
      not state it.
    allow_invalid: takes weights that are NaN or infinite and negative variances, with a warning.
    model_option: what gives `model` for the user, for messages: '--architecture' of a command.
    **overrides: fields of the model, such as dtype='bfloat16'.

  Raises:
    UserError: nothing there, or tensors and model do not fit.
  """
  weights = read(path_or_name, format, pretrained_dir=pretrained_dir, submodel=submodel)
  module = build(weights, model, model_option=model_option, **overrides)
  if module.num_classes:
    module = tasks.of_config(weights.config, module.num_classes).wrap(module)
  name = model or weights.model['name']
  preprocess = preprocess or weights.preprocess_for(name, input_range)
  if image_size is not None:
    preprocess = preprocessing.at_size(preprocess, image_size)
  options = Options(allow_invalid=allow_invalid, model=model, model_option=model_option)
  variables, report = fit(weights, module, preprocess.image_size, options)
  path = str(weights.tensors.path)
  preprocess = preprocessing.for_channels(preprocess, report.channels, path)
  if report.resized and image_size is None:
    log.warning(
      '%s: for images of %s, as is stated, resized: %s', weights.tensors.path,
      dimensions(preprocess.image_size), ', '.join(report.resized),
    )  # fmt: skip
  if report.left_out:
    log.warning(
      '%s: tensors beside those of the model are not used: %s', weights.tensors.path,
      some(report.left_out),
    )  # fmt: skip
  names = weights.classes_for(module.num_classes or 0, classes)
  config = {**weights.config, 'model': description(module, name)}
  return Loaded(
    module, variables, config, names, preprocess, batch_size, weights.step, weights.trained_on
  )


def _in_image(box: np.ndarray, mark: np.ndarray) -> tuple[float, ...]:
  """A box in the model's input -> the same in the image, given where _MARK was moved to."""
  scale = _MARK[2:] / mark[2:]
  found = [*((box[:2] - mark[:2]) * scale + _MARK[:2]), *(box[2:] * scale)]
  return tuple(float(x) for x in found)
