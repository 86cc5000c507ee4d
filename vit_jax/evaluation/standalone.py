"""Evaluates a saved model on a dataset, with a report where one is wanted."""

import dataclasses
import logging
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import tqdm

from vit_jax import data, metric_writer, parallel, processes, remote, report, tasks
from vit_jax.config import Dataset, parse_saved
from vit_jax.data import class_names
from vit_jax.data.sources import needs_download
from vit_jax.errors import CheckpointError, ConfigError, DatasetError, WeightsError
from vit_jax.evaluation.evaluator import Evaluator, loader_options, relabeled, spread
from vit_jax.evaluation.measure import measure
from vit_jax.inference.loaded import Loaded, load
from vit_jax.models.shapes import title

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Scores and what they are of.

  Attributes:
    dataset, split: the examples scored.
    metrics: means by metric; 'examples', 'skipped', 'img_sec'.
    report: the page, None where none was written.
    with_compilation: whether that is part of 'img_sec', since there was but one batch.
  """

  dataset: str
  split: str
  metrics: dict[str, float]
  report: pathlib.Path | None
  with_compilation: bool = False


def evaluate(
  model: str,
  *,
  dataset: str | None = None,
  data_dir: str = '',
  split: str | None = None,
  batch_size: int = 64,
  placement: str = 'data',
  on_error: str = 'raise',
  pretrained_dir: str = '',
  report_dir: str = '',
  opening: Mapping[str, Any] | None = None,
) -> Evaluation:
  """Scores every example of a split once.

  Args:
    model: a run's workdir, a weights file or a pretrained model's name.
    dataset: a folder, a TFDS name, 'digits' or 'shapes'; None for the one that the model was
      trained on.
    data_dir: where prepared TFDS datasets lie.
    split: None for 'test', or for all examples of a `dataset` that has no splits.
    batch_size: examples a step over all devices, at most.
    placement: one of `parallel.PLACEMENTS`.
    on_error: policy for images that cannot be decoded: 'raise' or 'skip'.
    pretrained_dir: a folder searched for named weights before any download.
    report_dir: where report.html goes; '' for none.
    opening: more arguments of `vit_jax.load`, such as class names.

  Raises:
    UserError: model, dataset and split do not fit together.
  """
  opened = None
  if dataset and not needs_download(dataset, data_dir):  # a mistake in it costs no download
    opened = _open(model, dataset, data_dir, {}, on_error)
  model = remote.local(model)
  loaded = load(model, pretrained_dir=pretrained_dir, **(opening or {}))
  if loaded.step != processes.agreed(lambda: loaded.step):
    raise CheckpointError(f'{model} got another best checkpoint meanwhile: run the command again')
  if not loaded.module.num_classes:
    raise WeightsError(f'{model} has no classifier to score: fine-tune it first')
  opened = opened or _open(model, dataset, data_dir, loaded.config, on_error)
  whole = bool(dataset) and opened.made_split
  asked_for_training = 'train' in (split or '')
  split = split or ('+'.join(opened.splits) if whole else 'test')
  examples = opened.split(split)
  if not asked_for_training:
    hint = 'the dataset changed since, or all of it is scored'
    loaded.trained_on.warn(opened.name, examples, 'images', hint)
  classes = loaded.classes
  if not classes:
    classes = _names_by_index(opened.classes, loaded.module.num_classes)
    log.warning(
      '%s does not state the names of its classes: they are taken to be those of %s in its order; '
      'give them with --classes=FILE', model, opened.name,
    )  # fmt: skip
  to_model = class_names.align(opened.classes, classes)
  task = loaded.task
  several = task.labels_per_image == 'several'
  if several and opened.labels_per_image == 'one':
    raise DatasetError(
      f'{model} predicts any number of classes per image, and images of {opened.name} have one '
      'each: it cannot be scored on them'
    )
  transform = data.parse_transform(loaded.preprocess.transform, train=False)
  where = parallel.make(placement)
  evaluator = Evaluator(
    loaded.module,
    task,
    loaded.preprocess,
    where,
    transform,
    spread(len(examples), batch_size),
    loader_options(on_error=on_error),
  )
  collector = None
  if report_dir:
    collector = report.Collector(examples, classes, label_sets=several)

  def batches(found: Any) -> Iterable[dict]:
    quiet = processes.index() or not sys.stderr.isatty()
    for batch in tqdm.tqdm(found, total=len(found), unit='batch', leave=False, disable=bool(quiet)):
      yield relabeled(batch, to_model, len(classes))

  metrics = evaluator(examples, where.put_state(loaded.variables), collector, batches)
  metrics['skipped'] = len(examples) - metrics['examples']
  page = None
  if collector is not None:
    page = _report(
      report_dir, model, loaded, opened.name, split, collector, examples, transform, task
    )
  return Evaluation(opened.name, split, metrics, page, len(examples) <= batch_size)


def _report(
  report_dir: str,
  model: str,
  loaded: Loaded,
  dataset: str,
  split: str,
  collector: report.Collector,
  examples: data.Examples,
  transform: data.Transform,
  task: tasks.Task,
) -> pathlib.Path | None:
  facts = report.Facts(
    name=pathlib.Path(model).name,
    model=title(loaded.config['model']),
    dataset=dataset,
    split=split,
    step=loaded.step,
    image_size=tuple(loaded.preprocess.image_size),
    config=loaded.config,
    activation=task.activation,
    **measure(loaded.variables, loaded.config),
  )
  predictions = collector.predictions(facts)
  if processes.index():
    return None
  report.write_report(
    report_dir,
    predictions,
    task.report_layout(),
    metrics_rows=metric_writer.read_metrics(model) if loaded.step is not None else [],
    load_image=report.image_loader(examples, transform),
  )
  return pathlib.Path(report_dir) / 'report.html'


def _open(
  model: str, dataset: str | None, data_dir: str, config: dict, on_error: str
) -> data.Dataset:
  if dataset:
    return Dataset(name=dataset, data_dir=data_dir, on_error=on_error).open()
  if not config.get('dataset'):
    raise ConfigError(f'{model} records no dataset: use --dataset=PATH')
  options = parse_saved({'dataset': config['dataset']}).dataset
  data_dir = data_dir or options.data_dir
  return dataclasses.replace(options, data_dir=data_dir, on_error=on_error).open()


def _names_by_index(names: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
  """The dataset's names for a model that has none; their numbers must agree."""
  if len(names) != num_classes:
    raise DatasetError(
      f'the model has {num_classes} classes without names and the dataset has {len(names)}: '
      'they cannot be matched'
    )
  by_number = class_names.in_order_of_numbers(names)
  if by_number != names:
    log.warning(
      'the model names no classes: the class folders are matched by number, %r after %r; weights '
      'that were trained in another order give wrong scores', by_number[-1], by_number[-2],
    )  # fmt: skip
  return by_number
