"""Every option once: name, type, default, range, unit and meaning.

Options that belong to one optimizer, schedule, task or loss are stated with it and join these
groups in `schema`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from vit_jax.data import Dataset as OpenedDataset
from vit_jax.data import open_dataset
from vit_jax.optimizers import OPTIMIZERS, SCHEDULES
from vit_jax.optimizers.parameter_groups import check_pattern, parse_multiplier
from vit_jax.options import LARGEST_SIDE, Length, component_options, option, rule_of
from vit_jax.parallel import PLACEMENTS, Mesh
from vit_jax.registry import Registry
from vit_jax.tasks import TASKS, Mixing
from vit_jax.trackers import TRACKERS

AUTO = 0  # the batch size that `auto` stands for until it is found
_SEEDS = {'low': 0, 'high': 2**32 - 1}


@dataclasses.dataclass(frozen=True)
class Dataset:
  name: str = option(
    'digits',
    "a folder of images or tar files, 'train-{0000..0146}.tar', a TFDS name ('stanford_dogs'), "
    "'digits' or 'shapes'",
    path=True,
    remote=True,
  )
  data_dir: str = option(
    '', 'where datasets prepared by TFDS lie; empty: ~/tensorflow_datasets', path=True
  )
  train: str = option('train', "split trained on, in TFDS notation: 'train[:90%]'")
  val: str = option('val', 'split validated on during training; empty: none')
  test: str = option('test', 'split scored once at the end; empty: none')
  classes: tuple[str, ...] = option((), 'use these classes alone, in this order; empty: all')
  per_class: int = option(0, 'at most this many images of each class, by seed; 0: all', low=0)
  split_fractions: tuple[float, ...] = option(
    (0.8, 0.1, 0.1),
    'train, val, test fractions where the dataset has no splits of its own',
    low=0,
    high=1,
    lengths=(3,),
  )
  resplit: bool = option(False, 'pool all images and split them by split_fractions anyway')
  seed: int = option(
    0, 'seed of the subset and of the split; the same for every model compared', **_SEEDS
  )
  on_error: str = option(
    'raise', 'policy for images that cannot be decoded', choices=('raise', 'skip')
  )

  def open(self) -> OpenedDataset:
    """The dataset that these options mean."""
    return open_dataset(
      self.name,
      data_dir=self.data_dir,
      seed=self.seed,
      classes=self.classes,
      per_class=self.per_class,
      split_fractions=self.split_fractions,
      resplit=self.resplit,
      on_error=self.on_error,
    )


@dataclasses.dataclass(frozen=True)
class Input:
  image_size: tuple[int, ...] = option(
    (224,),
    'height and width in pixels (one number: square), for operations that name no size',
    lengths=(1, 2),
    low=1,
    high=LARGEST_SIDE,
  )
  train_transform: str = option(
    'decode|inception_crop|flip_lr', 'transform of training, on the host'
  )
  eval_transform: str = option('decode|resize_small|central_crop', 'transform of evaluation')
  mean: tuple[float, ...] | None = option(
    None,
    'subtracted from each channel, on the 0..1 scale; None: as the weights need, else 0.5',
    low=0,
    high=1,
  )
  std: tuple[float, ...] | None = option(
    None, 'divides each channel, on the 0..1 scale; None: likewise', above=0, high=1
  )
  repeats: int = option(
    1, 'repeated augmentation: copies of an image that follow each other', low=1, high=1000
  )
  threads: int = option(0, 'loader threads of a process; 0: one per core', low=0, high=4096)
  workers: int = option(0, 'loader processes; 0: threads alone', low=0, high=1024)
  prefetch_gib: float = option(
    1.0, 'most memory of images that a process makes ahead of their step, in GiB', low=0, high=1e6
  )
  cache: str = option(
    '',
    "kept in memory across epochs: 'decoded' images, before the first random operation, or the "
    "'features' of a frozen backbone; empty: nothing",
    choices=('', 'decoded', 'features'),
  )
  cache_gib: float = option(
    0.0, 'most memory of the cache in GiB; 0: half of what is free at the start', low=0, high=1e6
  )


@dataclasses.dataclass(frozen=True)
class Task:
  name: str = option('classify', 'what is learned', choices=lambda: TASKS)


@dataclasses.dataclass(frozen=True)
class Optimizer:
  name: str = option('sgd', 'update rule', choices=lambda: OPTIMIZERS)
  learning_rate: float = option(0.01, 'peak learning rate', above=0, high=1e4)
  weight_decay: float = option(
    0.0,
    'sgd: added to the gradient; the others: decoupled, times the learning rate',
    low=0,
    high=1e4,
  )
  decay: tuple[str, ...] = option(
    ('kernel$=1', '.*=0'),
    "'REGEX=FACTOR' of weight decay by parameter name; the first match applies",
    parse=parse_multiplier,
  )
  multipliers: tuple[str, ...] = option(
    (),
    "'REGEX=FACTOR' of the learning rate by parameter name; the first match applies; empty: 1 for "
    'all',
    parse=parse_multiplier,
  )
  layer_decay: float = option(
    1.0,
    'learning rate of each block as a fraction of that of the next one up; 1: the same for all',
    above=0,
    high=1,
  )
  clip_norm: float = option(
    0.0, 'gradients are scaled down to this global norm; 0: never', low=0, high=1e9
  )
  clip_value: float = option(
    0.0, 'each gradient is clipped to this size; 0: never', low=0, high=1e9
  )
  sam_rho: float = option(0.0, 'SAM radius rho; 0: no SAM', low=0, high=100)
  sam_rho_end: float = option(
    1.0,
    'SAM: fraction of rho at a learning rate of zero; between, in proportion to the rate',
    low=0,
    high=1,
  )
  gsam_alpha: float = option(0.0, 'GSAM alpha; 0: SAM', low=0, high=100)


@dataclasses.dataclass(frozen=True)
class Ema:
  decay: float = option(0.0, 'EMA decay per step, such as 0.9999; 0: no EMA', low=0, below=1)
  warmup: bool = option(True, 'smaller decay at first: (1 + step) / (10 + step)')


@dataclasses.dataclass(frozen=True)
class Plateau:
  factor: float = option(1.0, 'learning-rate multiplier at each plateau; 1: never', above=0, high=1)
  metric: str = option('loss', 'validation metric that is monitored')
  mode: str = option('min', 'whether lower or higher is better', choices=('min', 'max'))
  patience: int = option(
    3, 'validations without improvement before each reduction', low=1, high=10**6
  )
  delta: float = option(0.0, 'smallest change that counts as an improvement', low=0)
  floor: float = option(0.0, 'smallest fraction of the scheduled learning rate', low=0, high=1)


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
  patience: int = option(
    0, 'validations without improvement before training ends; 0: off', low=0, high=10**6
  )
  metric: str = option('accuracy', 'validation metric that is monitored')
  mode: str = option('max', 'whether lower or higher is better', choices=('min', 'max'))
  delta: float = option(0.0, 'smallest change that counts as an improvement', low=0)


@dataclasses.dataclass(frozen=True)
class Schedule:
  name: str = option('cosine', 'decay', choices=lambda: SCHEDULES)
  warmup: str = option(
    '0 steps', 'linear warm-up from zero to the peak: steps, epochs or examples', parse=Length.parse
  )
  cooldown: str = option('0 steps', 'linear cool-down to zero at the end', parse=Length.parse)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  every: str = option(
    '1 epoch', 'validate this often: steps, epochs or examples', parse=Length.parse_positive
  )
  batch_size: int = option(
    0, 'examples a step over all devices; 0: as in training', low=0, high=1 << 24
  )


def _positive_or_empty(text: str) -> None:
  if text:
    Length.parse_positive(text)


@dataclasses.dataclass(frozen=True)
class Fewshot:
  every: str = option(
    '',
    "evaluate frozen features on val this often: '5 epochs'; empty: never",
    parse=_positive_or_empty,
  )
  shots: tuple[int, ...] = option(
    (1, 5, 10, 25), 'few-shot: images of each class for least squares', low=1, high=10**6
  )
  draws: int = option(3, 'few-shot: random draws, whose mean accuracy is logged', low=1, high=1000)
  l2: tuple[float, ...] = option(
    (1024.0,),
    'few-shot: L2 penalty; of several, the best by leave-one-out',
    above=0,
    high=1e12,
  )
  neighbours: tuple[int, ...] = option(
    (20,), 'k-NN: k; needs the features of all of train; empty: none', low=1, high=10**6
  )
  temperature: float = option(
    0.07, 'k-NN: a neighbour weighs exp(cosine similarity / temperature)', low=1e-3, high=1000
  )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  every: str = option(
    '1 epoch', 'save this often: steps, epochs or examples', parse=Length.parse_positive
  )
  keep: int = option(2, 'newest checkpoints kept', low=1, high=10**6)
  best: str = option('accuracy', 'validation metric whose best checkpoint is kept too')
  best_mode: str = option('max', 'whether higher or lower is better', choices=('max', 'min'))
  diverged_gib: float = option(
    8.0,
    'most disk for state and batch of a step that is not finite, for --replay, in GiB; 0: none',
    low=0,
    high=1e6,
  )


@dataclasses.dataclass(frozen=True)
class Log:
  every: str = option(
    '',
    'write training metrics this often; empty: the shortest of 20 steps, an epoch and a twentieth '
    'of the run',
    parse=_positive_or_empty,
  )
  tensorboard: bool = option(True, 'write TensorBoard event files too')
  to: tuple[str, ...] = option(
    (), 'experiment trackers that get the metrics too', choices=lambda: TRACKERS
  )
  project: str = option('', "what trackers show the run among; empty: their variable or 'vit_jax'")


@dataclasses.dataclass(frozen=True)
class Config:
  seed: int = option(0, 'seed of initial weights, order, crops and dropout', **_SEEDS)
  total: str = option(
    '10 epochs',
    "length of training: '500 steps', '5 epochs', '1e6 examples'",
    parse=Length.parse_positive,
  )
  batch_size: int = option(
    64,
    'global batch size, over all devices; auto: the largest that fits into memory',
    low=1,
    high=1 << 24,
    words={'auto': AUTO},
  )
  accumulate: int = option(
    1, 'gradient accumulation steps, to need less memory', low=1, high=1 << 24
  )
  parallel: str = option('data', 'how devices share a batch', choices=lambda: PLACEMENTS)
  mesh: Mesh = option(Mesh, 'devices of fsdp')
  init_from: str = option(
    '',
    'weights to start from: a run, a file or a pretrained model name; empty: none',
    path=True,
    remote=True,
  )
  head: str = option('reset', 'the classifier of those weights', choices=('reset', 'keep'))
  freeze: tuple[str, ...] = option(
    (),
    "parameters that are not trained: 'backbone', 'embeddings', 'blocks:6' (the first 6) or a "
    'regex',
    parse=check_pattern,
  )
  pretrained_dir: str = option(
    '', 'folder searched for weights, by name or file name, before any download', path=True
  )
  model: dict = dataclasses.field(
    default_factory=lambda: {'name': 'vit_ti16'},
    metadata={'help': 'name, and any field of that model: pool, dtype, drop_path_rate ...'},
  )
  dataset: Dataset = option(Dataset, 'the images')
  input: Input = option(Input, 'from images to arrays')
  task: Task = option(Task, 'what is learned')
  mixing: Mixing = option(Mixing, 'Mixup and CutMix, on the device')
  optimizer: Optimizer = option(Optimizer, 'optimizer')
  ema: Ema = option(Ema, 'EMA parameters, used for evaluation and saved for use')
  schedule: Schedule = option(Schedule, 'learning-rate schedule')
  plateau: Plateau = option(Plateau, 'ReduceLROnPlateau')
  early_stopping: EarlyStopping = option(EarlyStopping, 'early stopping')
  evaluation: Evaluation = option(Evaluation, 'validation')
  fewshot: Fewshot = option(Fewshot, 'few-shot and k-NN evaluation of frozen features')
  checkpoint: Checkpoint = option(Checkpoint, 'checkpoints')
  log: Log = option(Log, 'metric logs')

  def to_json(self) -> dict:
    """All options, nested."""
    return dataclasses.asdict(self)


# The groups whose components state options of their own.
COMPONENTS: dict[str, Registry] = {'task': TASKS, 'optimizer': OPTIMIZERS, 'schedule': SCHEDULES}


def schema() -> type[Config]:
  """`Config` with the options that all registered components state."""
  return _schema(tuple((group, tuple(registry)) for group, registry in COMPONENTS.items()))


@functools.cache
def _schema(registered: tuple) -> type[Config]:
  """Made anew whenever something was registered."""
  fields = []
  for field in dataclasses.fields(Config):
    if field.name in COMPONENTS:
      extended = _extended(field.type, component_options(COMPONENTS[field.name]))
      fields.append((field.name, extended, option(extended, rule_of(field).help)))
  return dataclasses.make_dataclass('Config', fields, bases=(Config,), frozen=True)


def _extended(group: Any, options: Mapping[str, tuple[Any, Any, dataclasses.Field]]) -> type:
  own = [
    (name, hint, dataclasses.field(default=default, metadata={'rule': rule_of(field)}))
    for name, (hint, default, field) in options.items()
  ]
  return dataclasses.make_dataclass(group.__name__, own, bases=(group,), frozen=True)


def group_of(field: dataclasses.Field) -> type | None:
  """The dataclass of a field that is a group of options; None for an option."""
  kind = field.type
  return kind if isinstance(kind, type) and dataclasses.is_dataclass(kind) else None


def leaves(cls: type | None = None, prefix: str = '') -> list[tuple[str, dataclasses.Field]]:
  """Every option, as (dotted name, field); those of a group where one is given."""
  found = []
  for field in dataclasses.fields(cls or schema()):
    if (group := group_of(field)) is not None:
      found += leaves(group, f'{prefix}{field.name}.')
    else:
      found.append((prefix + field.name, field))
  return found


def get(config: Config, name: str) -> Any:
  """The value of a dotted option name."""
  value: Any = config
  for part in name.split('.'):
    value = value[part] if isinstance(value, dict) else getattr(value, part)
  return value
