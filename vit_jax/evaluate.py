"""Scores a model on any split, every example once: `python -m vit_jax.evaluate MODEL`."""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vit_jax.errors import UserError, run_cli


def score(
  eval_step: Callable[[Any, dict], tuple[dict, Any]],
  placement: Any,
  variables: Any,
  batches: Iterable[dict],
  on_batch: Callable[[dict, np.ndarray], None] | None = None,
  summary: Callable[[np.ndarray, dict], dict[str, float]] | None = None,
) -> dict[str, float]:
  """Means of the metrics over all unmasked examples.

  Args:
    eval_step: compiled by the placement: (variables, batch) -> ({name: [b]}, outputs [b, ...]); a
      metric may be a pair of values and weights, see `tasks.metrics`.
    placement: puts batches on devices and brings rows back.
    variables: placed.
    batches: with 'mask' [b], False for padding.
    on_batch: sees each batch with this process's outputs, padding included.
    summary: gives metrics that are no means, from the logits [n, k] and {'labels': [n, k]} of all
      pictures.

  Returns:
    The mean of each metric (0 where it is of no example) and 'examples', how many there were, over
    all processes.
  """
  from vit_jax import parallel  # --help must not wait for JAX

  sums: dict[str, np.ndarray] = {}  # by metric: sum and number of examples
  count = 0
  kept: dict[str, list[np.ndarray]] = {'logits': [], 'labels': [], 'mask': []}
  for batch in batches:
    metrics, outputs = eval_step(variables, placement.put_batch(_arrays(batch)))
    mask = batch['mask']
    for name, values in placement.get_examples(metrics).items():
      values, weights = values if isinstance(values, tuple) else (values, np.ones(len(mask)))
      weights = np.where(mask, weights, 0.0)
      # Chosen, not multiplied: a padded row's NaN must not spoil the sum.
      total = np.where(weights > 0, values.astype(np.float64) * weights, 0.0).sum()
      sums[name] = sums.get(name, np.zeros(2)) + [total, weights.sum()]
    count += int(mask.sum())
    rows = placement.get_examples(outputs) if on_batch or summary else None
    if on_batch:
      on_batch(batch, rows)
    if summary:
      for name, values in (('logits', rows), ('labels', batch['labels']), ('mask', mask)):
        kept[name].append(np.asarray(values))
  sums, count = _over_processes(sums, count)
  if not count:
    raise UserError('no picture could be evaluated: the split is empty or unreadable')
  means = {name: float(total / n) if n else 0.0 for name, (total, n) in sums.items()}
  if summary:
    rows = parallel.gather({name: np.concatenate(parts) for name, parts in kept.items()})
    means |= summary(rows['logits'][rows['mask']], {'labels': rows['labels'][rows['mask']]})
  return means | {'examples': count}


def _arrays(batch: dict) -> dict:
  names = ('image', 'label', 'labels', 'box', 'has_box')
  return {name: x for name, x in batch.items() if name in names}


def _over_processes(sums: dict[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], int]:
  """Sums and counts over all processes."""
  from vit_jax import parallel

  names = list(sums)  # in the order of the step, which is the same everywhere
  mine = np.array([*np.ravel([sums[n] for n in names]), count], np.float64)
  # Sent as bytes: JAX would round float64 to float32 on the way.
  every = parallel.gather({'bytes': np.frombuffer(mine.tobytes(), np.uint8)})['bytes']
  total = np.frombuffer(every.tobytes(), np.float64).reshape(-1, len(mine)).sum(axis=0)
  return dict(zip(names, total[:-1].reshape(-1, 2))), int(total[-1])


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.evaluate',
    description='Scores a model: every picture of a split once, whatever the batch size.',
    epilog='example: python -m vit_jax.evaluate runs/dogs --split=test',
  )
  parser.add_argument('model', help="a run's workdir, a weights file or a zoo name")
  parser.add_argument('--dataset', help="folder, TFDS name or 'digits'; default: the run's own")
  parser.add_argument('--data_dir', default='', help='where prepared TFDS datasets lie')
  parser.add_argument(
    '--split',
    help="which pictures, such as 'train[:10%%]'; default: test, or "
    'all pictures of a --dataset that has no splits',
  )
  parser.add_argument('--batch_size', type=int, default=64, help='pictures a step, all devices')
  parser.add_argument('--parallel', default='data', choices=('data', 'pmap'))
  parser.add_argument(
    '--on_error', default='raise', choices=('raise', 'skip'), help='what an unreadable picture does'
  )
  parser.add_argument('--pretrained_dir', default='', help='searched for named weights first')
  parser.add_argument(
    '--report', default='', metavar='DIR', help='write report.html, figures and tables there'
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parser().parse_args(argv)
  import vit_jax
  from vit_jax import convert, data, parallel, tasks, train_step

  loaded = vit_jax.load(args.model, pretrained_dir=args.pretrained_dir)
  if not loaded.module.num_classes:
    raise UserError(f'{args.model} has no classifier to score: fine-tune it first')
  placement = parallel.make(args.parallel)
  batch_size = parallel.round_up(args.batch_size, placement)
  dataset = _open(args, loaded.config)
  whole = bool(args.dataset) and dataset.made_split
  args.split = args.split or ('+'.join(dataset.splits) if whole else 'test')
  examples = dataset.split(args.split)
  classes = loaded.classes or _names_by_number(dataset.classes, loaded.module.num_classes)
  to_model = convert.labels.align(dataset.classes, classes)
  transform = data.parse_transform(loaded.preprocess.transform, train=False)
  batches = data.eval_batches(examples, transform, batch_size=batch_size, on_error=args.on_error)
  task = tasks.of_config(loaded.config, len(classes))
  if task.summary and dataset.classes_each == 'one':
    raise UserError(
      f'{args.model} tells several classes a picture, and pictures of {dataset.name} '
      'have one each: it cannot be scored on them'
    )
  step = placement.compile_eval(train_step.make_eval_step(loaded.module, task, loaded.preprocess))
  shown = _with_progress(batches, len(examples), batch_size)
  relabelled = (_relabelled(batch, to_model, len(classes)) for batch in shown)
  collector = _collector(args, examples, classes, several=bool(task.summary))
  began = time.monotonic()
  result = score(
    step,
    placement,
    placement.put_state(loaded.variables),
    relabelled,
    on_batch=collector,
    summary=task.summary,
  )
  result['img_sec'] = result['examples'] / (time.monotonic() - began)
  result['skipped'] = len(examples) - result['examples']
  _say(args, dataset.name, result)
  if collector is not None:
    _report(args, loaded, dataset.name, collector, examples, transform, task.loss)
  return 0


def _relabelled(batch: dict, to_model: np.ndarray, num_classes: int) -> dict:
  """The batch with the model's class indices."""
  batch = {**batch, 'label': to_model[batch['label']]}
  if 'labels' in batch:
    labels = np.zeros((len(batch['labels']), num_classes), batch['labels'].dtype)
    labels[:, to_model] = batch['labels']
    batch['labels'] = labels
  return batch


def _names_by_number(names: tuple[str, ...], num_classes: int) -> tuple[str, ...]:
  """The dataset's names for a model without any; the numbers must agree."""
  if len(names) != num_classes:
    raise UserError(
      f'the model has {num_classes} classes without names and the dataset has {len(names)}: '
      'they cannot be matched'
    )
  return names


def _say(args: argparse.Namespace, dataset: str, result: dict[str, float]) -> None:
  if args.json:
    print(json.dumps({'model': args.model, 'dataset': dataset, 'split': args.split, **result}))
    return
  print(f'{args.model} on {dataset} {args.split}: {result["examples"]} pictures')
  for name, value in result.items():
    if name not in ('examples', 'skipped'):
      print(f'  {name:10} {value:.4f}')
  if result['skipped']:
    print(f'  skipped    {result["skipped"]} unreadable pictures')


def _collector(
  args: argparse.Namespace, examples: Any, classes: tuple[str, ...], several: bool
) -> Any:
  if not args.report:
    return None
  from vit_jax import report

  return report.Collector(examples, classes, several)


def _report(args, loaded, dataset: str, collector, examples, transform, link: str) -> None:
  import jax

  from vit_jax import checkpoint, report, writer

  is_run = checkpoint.is_run(args.model)
  facts = report.Facts(
    name=pathlib.Path(args.model).name,
    model=loaded.config['model']['name'],
    dataset=dataset,
    split=args.split,
    step=checkpoint.chosen_step(args.model) if is_run else None,
    image_size=tuple(loaded.preprocess.image_size),
    config=loaded.config,
    link=link,
    **report.measure(loaded.variables, loaded.config),
  )
  predictions = collector.predictions(facts)
  if jax.process_index():
    return
  has_rows = is_run and pathlib.Path(args.model, 'metrics.jsonl').exists()
  report.write_report(
    args.report,
    predictions,
    metrics_rows=writer.read_metrics(args.model) if has_rows else [],
    load_picture=report.picture_loader(examples, transform),
  )
  print(f'report: {pathlib.Path(args.report) / "report.html"}')


def _open(args: argparse.Namespace, config: dict) -> Any:
  from vit_jax.config import Dataset

  if args.dataset:
    return Dataset(name=args.dataset, data_dir=args.data_dir).open()
  if not config.get('dataset'):
    raise UserError(f'{args.model} names no dataset: say --dataset=PATH')
  options = Dataset(**config['dataset'])
  return dataclasses.replace(options, data_dir=args.data_dir or options.data_dir).open()


def _with_progress(batches: Iterable[dict], examples: int, batch_size: int) -> Iterable[dict]:
  import tqdm

  return tqdm.tqdm(
    batches,
    total=-(-examples // batch_size),
    unit='batch',
    leave=False,
    disable=not sys.stderr.isatty(),
  )


if __name__ == '__main__':
  run_cli(main)
