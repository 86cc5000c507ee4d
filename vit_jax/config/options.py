"""Every option once: name, type, default, unit and meaning."""

import dataclasses
import re
from typing import Any, Literal

from vit_jax.errors import UserError


def _option(default: Any, text: str, choices: tuple = ()) -> Any:
  metadata = {'help': text, 'choices': choices}
  return dataclasses.field(default=default, metadata=metadata)


def _group(cls: type, text: str) -> Any:
  return dataclasses.field(default_factory=cls, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Length:
  """A stretch of training: a number with its unit, written '500 steps' or '5 epochs'."""

  amount: float
  unit: Literal['steps', 'epochs', 'examples']

  @classmethod
  def parse(cls, text: str | int) -> 'Length':
    match = re.fullmatch(r'\s*([\d.]+(?:e\d+)?)\s*([a-z]*)\s*', str(text).lower())
    units = {'': 'steps', 'step': 'steps', 'epoch': 'epochs', 'example': 'examples'}
    unit = match and units.get(match[2].removesuffix('s'))
    try:
      if not unit:
        raise ValueError
      return cls(float(match[1]), unit)
    except ValueError:
      raise UserError(
        f"expected a length such as '500 steps', '5 epochs' or '1e6 examples', got {text!r}"
      ) from None

  def steps(self, batch_size: int, num_examples: int) -> float:
    """The length in steps of `batch_size` examples from a set of `num_examples`; not rounded."""
    examples = {
      'steps': self.amount * batch_size,
      'epochs': self.amount * num_examples,
      'examples': self.amount,
    }[self.unit]
    return examples / batch_size


def parse_multiplier(text: str) -> tuple[str, float]:
  """'REGEX=FACTOR' as its two parts.

  Raises:
    UserError: the text is of another form.
  """
  pattern, equals, factor = text.rpartition('=')
  try:
    if not equals or float(factor) < 0:
      raise ValueError
    re.compile(pattern)
    return pattern, float(factor)
  except (ValueError, re.error):
    raise UserError(f"expected 'REGEX=FACTOR' with a factor from 0 up, got {text!r}") from None


@dataclasses.dataclass(frozen=True)
class Dataset:
  name: str = _option('digits', "a folder of pictures, a TFDS name ('stanford_dogs') or 'digits'")
  data_dir: str = _option('', 'where prepared TFDS datasets lie; empty: ~/tensorflow_datasets')
  train: str = _option('train', "split trained on, in TFDS notation: 'train[:90%]'")
  val: str = _option('val', 'split validated on during training; empty or absent: none')
  test: str = _option('test', 'split scored once at the end; empty or absent: none')
  classes: tuple[str, ...] = _option((), 'use these classes alone, in this order; empty: all')
  per_class: int = _option(0, 'at most this many pictures of each class, by seed; 0: all')
  split_fractions: tuple[float, ...] = _option(
    (0.8, 0.1, 0.1), 'train, val, test shares where the dataset has no splits of its own'
  )
  resplit: bool = _option(False, 'pool all pictures and split them by split_fractions anyway')
  seed: int = _option(0, 'seed of the subset and of the split; the same for every model compared')
  on_error: str = _option('raise', 'what an unreadable picture does', ('raise', 'skip'))

  def open(self):
    """The `data.Dataset` that these options mean."""
    from vit_jax import data  # options must be listed without loading the readers

    return data.open_dataset(
      self.name,
      data_dir=self.data_dir,
      seed=self.seed,
      classes=self.classes,
      per_class=self.per_class,
      split_fractions=self.split_fractions,
      resplit=self.resplit,
    )


@dataclasses.dataclass(frozen=True)
class Input:
  image_size: tuple[int, ...] = _option(
    (224,), 'height and width, pixels (one number: square), for operations that name no size'
  )
  train_transform: str = _option('decode|inception_crop|flip_lr', 'what the host does in training')
  eval_transform: str = _option('decode|resize_small|central_crop', 'what it does in evaluation')
  mean: tuple[float, ...] | None = _option(
    None, 'subtracted from each channel, 0..1 scale; None: as the weights want, else 0.5'
  )
  std: tuple[float, ...] | None = _option(None, 'divides each channel, 0..1 scale; None: likewise')
  repeats: int = _option(1, 'repeated augmentation: copies of a picture that follow each other')
  threads: int = _option(0, 'reading threads a process; 0: one a core')
  workers: int = _option(0, 'reading processes; 0: threads alone')


@dataclasses.dataclass(frozen=True)
class Task:
  name: str = _option('classify', 'what is learned', ('classify', 'boxes', 'distill', 'multilabel'))
  loss: str = _option(
    'softmax',
    'cross-entropy over classes or for each; multilabel: always for each',
    ('softmax', 'sigmoid'),
  )
  label_smoothing: float = _option(0.0, 'share of the target spread over all classes, 0 to 1')
  teacher: str = _option('', 'distill: the model learned from: a run, weights file or zoo name')
  distillation: str = _option(
    'soft', "distill: the teacher's probabilities or its prediction", ('soft', 'hard')
  )
  temperature: float = _option(3.0, 'distill: softens probabilities of both')
  alpha: float = _option(0.5, "distill: the teacher's share of the loss")
  teacher_cache: str = _option(
    '', "distill: folder of the teacher's answers, kept for runs with the same pictures and crops"
  )
  class_divisor: float = _option(1.0, 'boxes: the constant C that the class loss is divided by')
  box_loss: str = _option(
    'l1_giou', 'boxes: what a wrong box costs', ('l1', 'l2', 'giou', 'l1_giou')
  )
  box_from: str = _option(
    'pooled',
    'boxes: read from the pooled features, or places of the picture vote for edges',
    ('pooled', 'places'),
  )
  box_sigmoid: bool = _option(True, 'boxes: a sigmoid ends the head of boxes from pooled features')
  learned_weights: bool = _option(False, 'boxes: the weights of the two losses are learned')
  head_hidden: int = _option(512, "boxes: units of each head's hidden layer")
  head_dropout: float = _option(0.2, 'boxes: dropout rate on the hidden layers')


@dataclasses.dataclass(frozen=True)
class Mixing:
  mixup: float = _option(0.0, 'Beta(a, a) of blended pairs of pictures; 0: never')
  cutmix: float = _option(0.0, 'Beta(a, a) of the area pasted from another picture; 0: never')
  switch: float = _option(0.5, 'where both are on: share of batches or pairs that CutMix takes')
  probability: float = _option(1.0, 'share of batches, or of pairs, that are mixed at all')
  per_pair: bool = _option(False, 'draw for every pair of pictures, not once a batch')


@dataclasses.dataclass(frozen=True)
class Optimizer:
  name: str = _option('sgd', 'the update rule', ('sgd', 'adamw', 'lamb', 'lion', 'adafactor'))
  learning_rate: float = _option(0.01, 'peak learning rate')
  momentum: float = _option(0.9, 'sgd, adafactor: share of the last update kept')
  b1: float = _option(0.9, 'adamw, lamb, lion: decay of the first moment')
  b2: float = _option(0.999, 'adamw, lamb, lion: decay of the second moment; adafactor: its most')
  eps: float = _option(1e-8, 'adamw, lamb: added to the root of the second moment')
  state_dtype: str = _option(
    'float32', 'precision of momentum or first moment', ('float32', 'bfloat16')
  )
  weight_decay: float = _option(
    0.0, 'sgd: added to the gradient; the others: decoupled, times the learning rate'
  )
  decay: tuple[str, ...] = _option(
    ('kernel$=1', '.*=0'), "'REGEX=FACTOR' of weight decay by parameter name; the first counts"
  )
  multipliers: tuple[str, ...] = _option(
    (), "'REGEX=FACTOR' of the learning rate by parameter name; the first counts; empty: 1 for all"
  )
  layer_decay: float = _option(
    1.0, 'learning rate of each block as a share of that of the next one up; 1: all alike'
  )
  clip_norm: float = _option(0.0, 'gradients are scaled down to this global norm; 0: never')
  clip_value: float = _option(0.0, 'each gradient is cut to this size; 0: never')
  sam_rho: float = _option(0.0, 'SAM: distance of the second gradient, in weights; 0: plain')
  sam_rho_end: float = _option(
    1.0, 'SAM: share of sam_rho at a learning rate of zero; between, in proportion to the rate'
  )
  gsam_alpha: float = _option(0.0, 'GSAM: weight of the step towards flatter places; 0: SAM')


@dataclasses.dataclass(frozen=True)
class Ema:
  decay: float = _option(0.0, 'share of the weight average kept each step, such as 0.9999; 0: none')
  warmup: bool = _option(True, 'keep less at first: (1 + step) / (10 + step)')


@dataclasses.dataclass(frozen=True)
class Plateau:
  factor: float = _option(1.0, 'learning rate times this where validation stalls; 1: never')
  metric: str = _option('loss', 'the validation metric watched')
  mode: str = _option('min', 'whether less or more of it is better', ('min', 'max'))
  patience: int = _option(3, 'validations without improvement before each cut')
  delta: float = _option(0.0, 'least change that counts as an improvement')
  floor: float = _option(0.0, 'least share of the scheduled rate that is left')


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
  patience: int = _option(0, 'validations without improvement before training ends; 0: never')
  metric: str = _option('accuracy', 'the validation metric watched')
  mode: str = _option('max', 'whether less or more of it is better', ('min', 'max'))
  delta: float = _option(0.0, 'least change that counts as an improvement')


@dataclasses.dataclass(frozen=True)
class Schedule:
  name: str = _option('cosine', 'decay', ('cosine', 'linear', 'rsqrt', 'constant'))
  warmup: str = _option('0 steps', 'linear rise from zero to the peak: steps, epochs or examples')
  end: float = _option(0.0, 'cosine, linear: final rate as a share of the peak')
  timescale: str = _option('10000 steps', 'rsqrt: length over which the rate halves its square')
  cooldown: str = _option('0 steps', 'rsqrt, constant: linear fall to zero at the end')


@dataclasses.dataclass(frozen=True)
class Evaluation:
  every: str = _option('1 epoch', 'validate this often: steps, epochs or examples')
  batch_size: int = _option(0, 'pictures a step over all devices; 0: as in training')


@dataclasses.dataclass(frozen=True)
class Fewshot:
  every: str = _option('', "score frozen features on val this often: '5 epochs'; empty: never")
  shots: tuple[int, ...] = _option((1, 5, 10, 25), 'least squares from so many pictures of a class')
  draws: int = _option(3, 'how often these pictures are drawn; their mean accuracy is written')
  l2: tuple[float, ...] = _option(
    (1024.0,), 'penalty; of several the best by leaving out each picture in turn'
  )
  neighbours: tuple[int, ...] = _option(
    (20,), 'nearest neighbours that vote; needs the features of all of train; empty: none'
  )
  temperature: float = _option(0.07, 'a neighbour weighs exp(cosine similarity / temperature)')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  every: str = _option('1 epoch', 'save this often: steps, epochs or examples')
  keep: int = _option(2, 'newest checkpoints kept')
  best: str = _option('accuracy', 'validation metric whose best checkpoint is kept too')
  best_mode: str = _option('max', 'whether more or less of it is better', ('max', 'min'))


@dataclasses.dataclass(frozen=True)
class Log:
  every: str = _option('20 steps', 'write training metrics this often')
  tensorboard: bool = _option(True, 'write event files too')


@dataclasses.dataclass(frozen=True)
class Config:
  seed: int = _option(0, 'seed of initial weights, order, crops and dropout')
  total: str = _option('10 epochs', "length of training: '500 steps', '5 epochs', '1e6 examples'")
  batch_size: int = _option(64, 'pictures an update, over all devices')
  accumulate: int = _option(1, 'parts a batch is computed in, to need less memory')
  parallel: str = _option('data', 'how devices share a batch', ('data', 'pmap'))
  init_from: str = _option('', 'weights to start from: a run, a file or a zoo name; empty: none')
  head: str = _option('reset', 'the classifier of those weights', ('reset', 'keep'))
  freeze: tuple[str, ...] = _option(
    (), "weights kept as they are: 'backbone', 'embeddings', 'blocks:6' (the first 6) or a regex"
  )
  pretrained_dir: str = _option('', 'folder searched for named weights before any download')
  model: dict = dataclasses.field(
    default_factory=lambda: {'name': 'vit_ti16'},
    metadata={'help': 'name, and any field of that model: pool, dtype, drop_path_rate ...'},
  )
  dataset: Dataset = _group(Dataset, 'which pictures')
  input: Input = _group(Input, 'how pictures become arrays')
  task: Task = _group(Task, 'what is learned')
  mixing: Mixing = _group(Mixing, 'Mixup and CutMix, on the device')
  optimizer: Optimizer = _group(Optimizer, 'how weights move')
  ema: Ema = _group(Ema, 'an average of the weights, which is then what the run gives')
  schedule: Schedule = _group(Schedule, 'how the learning rate moves')
  plateau: Plateau = _group(Plateau, 'a lower rate where validation stalls')
  early_stopping: EarlyStopping = _group(EarlyStopping, 'an end where validation stalls')
  evaluation: Evaluation = _group(Evaluation, 'when and how to validate')
  fewshot: Fewshot = _group(Fewshot, 'few-shot and nearest-neighbour scores of frozen features')
  checkpoint: Checkpoint = _group(Checkpoint, 'what is kept')
  log: Log = _group(Log, 'what is written')

  def to_json(self) -> dict:
    return dataclasses.asdict(self)


def leaves(cls: type, prefix: str = '') -> list[tuple[str, dataclasses.Field]]:
  """Every option below a dataclass, as (dotted name, field)."""
  found = []
  for field in dataclasses.fields(cls):
    if dataclasses.is_dataclass(field.type):
      found += leaves(field.type, f'{prefix}{field.name}.')
    else:
      found.append((prefix + field.name, field))
  return found


def get(config: Config, name: str) -> Any:
  """The value of a dotted option name."""
  for part in name.split('.'):
    config = config[part] if isinstance(config, dict) else getattr(config, part)
  return config


def describe() -> str:
  """All options with defaults and meaning, for --help."""
  lines = []
  for name, field in leaves(Config):
    default_value = {'name': 'vit_ti16'} if name == 'model' else field.default
    choices = field.metadata['choices'] if name != 'model' else ()
    text = field.metadata['help'] + (f' ({", ".join(choices)})' if choices else '')
    shown = f'--config.{name}={default_value}' if name != 'model' else '--config.model.FIELD=...'
    lines.append(f'  {shown}\n      {text}')
  return '\n'.join(lines)
