"""The command `python -m vit_jax.probe MODEL --dataset=PATH`."""

import argparse
import dataclasses
import json
import os
import pathlib
import time
from typing import Any

from vit_jax.errors import UserError, run_cli
from vit_jax.evaluation import frozen_scores
from vit_jax.evaluation.feature_cache import FeatureCache
from vit_jax.evaluation.linear_probe import Head, fit_head, score, with_head


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.probe',
    description='Says how far the frozen features of a model go: by a linear classifier, by least '
    'squares from a few pictures of each class, or by the nearest neighbours. Features are kept: '
    'the next probe of the same pictures takes seconds.',
    epilog='example: python -m vit_jax.probe weights.npz --dataset=path/to/pictures '
    '--out=probe.safetensors',
  )
  add = parser.add_argument
  add('model', help="a run's workdir, a weights file or a zoo name")
  add('--dataset', required=True, help="a folder of pictures, a TFDS name or 'digits'")
  add(
    '--method',
    default='linear',
    choices=('linear', 'fewshot', 'knn'),
    help='logistic regression on all training pictures, closed-form least squares on a few, or '
    'a vote of neighbours',
  )
  add('--train', default='train', help="split the head is fitted to, such as 'train[:90%%]'")
  add(
    '--val',
    help="split the penalty is chosen on; default: 'val' where there is one besides the "
    'test split, else 5-fold cross-validation',
  )
  add('--test', help="split scored at the end; default: 'test', else 'val'")
  add('--c', type=float, help='linear: inverse strength of the L2 penalty; default: chosen')
  add('--shots', default='1,5,10,25', help='fewshot: training pictures of each class')
  add('--draws', type=int, default=3, help='fewshot: how often they are drawn')
  add(
    '--l2',
    default='1024',
    help='fewshot: penalty; of several, such as 1,32,1024, the best by '
    'leaving out each picture in turn',
  )
  add('--neighbours', default='10,20', help='knn: how many vote')
  add(
    '--temperature',
    type=float,
    default=0.07,
    help='knn: a neighbour weighs exp(cosine similarity / temperature)',
  )
  add(
    '--out',
    default='',
    metavar='FILE.safetensors',
    help='linear: write backbone and head as a model for predict, evaluate and the like',
  )
  add('--classes', default='', help='use these alone, in this order, separated by commas')
  add('--per_class', type=int, default=0, help='at most so many pictures of each class; 0: all')
  add('--resplit', action='store_true', help='pool all pictures and split them anew')
  add('--split_fractions', default='0.8,0.1,0.1', help='train, val, test shares of a new split')
  add('--seed', type=int, default=0, help='of the subset, the split and the folds')
  add('--data_dir', default='', help='where prepared TFDS datasets lie')
  add(
    '--on_error', default='raise', choices=('raise', 'skip'), help='what an unreadable picture does'
  )
  add('--batch_size', type=int, default=32, help='most pictures computed at once')
  add('--pretrained_dir', default='', help='searched for named weights first')
  add('--architecture', default='', help='model name, for weights whose tensors do not tell')
  add('--cache_dir', default='', help="where features are kept; default: the user's cache")
  add('--json', action='store_true', help='print one JSON object')
  return parser


def _check(args: argparse.Namespace) -> None:
  problems = []
  out = pathlib.Path(args.out)
  if args.out and out.suffix != '.safetensors':
    problems.append(f'--out must end in .safetensors, got {args.out}')
  if args.out and not out.parent.is_dir():
    problems.append(f'--out: there is no folder {out.parent}')
  if args.c is not None and not args.c > 0:
    problems.append(f'--c must be positive, got {args.c}')
  if args.out and args.method != 'linear':
    problems.append(f'--out needs --method=linear: {args.method} makes no model')
  for name, kind in (('shots', int), ('neighbours', int), ('l2', float)):
    values = _numbers(getattr(args, name), kind)
    if not values or min(values) <= 0:
      problems.append(
        f'--{name} takes positive numbers such as {_parser().get_default(name)}, got '
        f'{getattr(args, name)!r}'
      )
    setattr(args, name, values)
  if args.draws < 1 or not args.temperature > 0:
    problems.append('--draws and --temperature must be positive')
  if args.batch_size < 1:
    problems.append(f'--batch_size must be positive, got {args.batch_size}')
  try:
    args.split_fractions = tuple(float(part) for part in args.split_fractions.split(','))
  except ValueError:
    problems.append(f'--split_fractions takes shares such as 0.8,0,0.2: {args.split_fractions}')
  if problems:
    raise UserError(problems)


def _numbers(text: str, kind: type) -> tuple:
  """'1,5' as numbers; () for anything else."""
  try:
    return tuple(kind(part) for part in text.split(','))
  except ValueError:
    return ()


def choose_splits(val: str | None, test: str | None, dataset: Any) -> tuple[str, str]:
  """The splits to choose the penalty on ('' for cross-validation) and to score.

  Args:
    val, test: as the user named them; None for the dataset's own.
    dataset: of `vit_jax.data`.

  Raises:
    UserError: there is nothing to score on.
  """
  test = test or next((name for name in ('test', 'val') if dataset.has_split(name)), '')
  if not test:
    raise UserError(
      f'{dataset.name} has neither a test nor a val split: say --train=train[:80%] '
      '--test=train[80%:], or --resplit'
    )
  if val is None:
    val = 'val' if dataset.has_split('val') and test != 'val' else ''
  return val, test


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parser().parse_args(argv)
  _check(args)
  from vit_jax.config import Dataset
  from vit_jax.inference.loaded import load
  from vit_jax.weights import download

  options = Dataset(
    name=args.dataset,
    data_dir=args.data_dir,
    per_class=args.per_class,
    resplit=args.resplit,
    classes=tuple(c.strip() for c in args.classes.split(',') if c.strip()),
    seed=args.seed,
    split_fractions=args.split_fractions,
    on_error=args.on_error,
    train=args.train,
  )
  dataset = options.open()
  val, test = choose_splits(args.val, args.test, dataset)
  options = dataclasses.replace(options, val=val, test=test)
  examples = {name: dataset.split(name) for name in dict.fromkeys((args.train, val, test)) if name}
  began = time.monotonic()
  loaded = load(
    args.model,
    model=args.architecture,
    pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
  )
  folder = download.cache_dir(args.cache_dir) / 'features'
  name = os.path.abspath(args.dataset) if os.path.isdir(args.dataset) else args.dataset
  cache = FeatureCache(loaded, folder, name)
  if args.method != 'linear':
    measure = frozen_scores.few_shot if args.method == 'fewshot' else frozen_scores.neighbours
    classes = len(dataset.classes)
    result = measure(args, cache, examples[args.train], examples[test], classes)
    result['seconds'] = round(time.monotonic() - began, 2)
    _say_scores(args, dataset.name, test, result)
    return 0
  splits = {name: cache.features(e, name, args.on_error) for name, e in examples.items()}
  cache.save()
  features_seconds = time.monotonic() - began
  head, result = _linear(args, splits, val, test, len(dataset.classes))
  result = {
    **result,
    'features_seconds': round(features_seconds, 2),
    'computed': sum(split.computed for split in splits.values()),
    'skipped': sum(split.skipped for split in splits.values()),
    'cpu_seconds': round(time.process_time(), 2),
  }
  if args.out:
    _write(args.out, loaded, head, dataset.classes, options)
  _say(args, dataset.name, test, len(splits[args.train].labels), val, result)
  return 0


def _linear(
  args: argparse.Namespace, splits: dict, val: str, test: str, num_classes: int
) -> tuple[Head, dict]:
  """The fitted head and its scores."""
  began = time.monotonic()
  train = splits[args.train]
  head = fit_head(
    train.x,
    train.labels,
    num_classes,
    args.c,
    (splits[val].x, splits[val].labels) if val else None,
    args.seed,
  )
  return head, {
    **score(head, splits[test].x, splits[test].labels),
    'train_accuracy': score(head, train.x, train.labels)['accuracy'],
    'c': head.c,
    'fit_seconds': round(time.monotonic() - began, 2),
  }


def _write(out: str, loaded: Any, head: Head, classes: tuple[str, ...], options: Any) -> None:
  from vit_jax.config import Task
  from vit_jax.weights.loading import description
  from vit_jax.weights.saving import write

  module, variables = with_head(loaded, head)
  write(
    out,
    variables,
    module,
    'vit_jax',
    model=description(module, loaded.config['model']['name']),
    classes=classes,
    preprocess=loaded.preprocess,
    config={'dataset': dataclasses.asdict(options), 'task': dataclasses.asdict(Task())},
  )


def _say(
  args: argparse.Namespace, dataset: str, test: str, trained_on: int, val: str, result: dict
) -> None:
  if args.json:
    print(json.dumps({'model': args.model, 'dataset': dataset, 'split': test, **result}))
    return
  chosen = 'given' if args.c else f'chosen on {val}' if val else 'chosen by cross-validation'
  print(
    f'{args.model} on {dataset}: {trained_on} pictures of {args.train}, '
    f'{result["examples"]} of {test}'
  )
  print(f'  accuracy   {result["accuracy"]:.4f}')
  print(f'  top3       {result["top3"]:.4f}')
  print(f'  train      {result["train_accuracy"]:.4f}')
  print(f'  c          {result["c"]:.3g} ({chosen})')
  print(
    f'  seconds    {result["features_seconds"]} to load and compute {result["computed"]} new '
    f'features, {result["fit_seconds"]} to fit; {result["cpu_seconds"]} of CPU in all'
  )
  if result['skipped']:
    print(f'  skipped    {result["skipped"]} unreadable pictures')
  if args.out:
    print(f'wrote {args.out}')


def _say_scores(args: argparse.Namespace, dataset: str, test: str, result: dict) -> None:
  if args.json:
    print(json.dumps({'model': args.model, 'dataset': dataset, 'split': test, **result}))
    return
  print(
    f'{args.model} on {dataset}: {result["trained_on"]} pictures of {args.train}, '
    f'{result["examples"]} of {test}'
  )
  for name, value in result['scores'].items():
    spread = f'  (+- {value["std"]:.4f} over {args.draws} draws)' if 'std' in value else ''
    print(f'  {name:10} {value["accuracy"]:.4f}{spread}')
  print(f'  seconds    {result["seconds"]}, {result["computed"]} new features')
  if result['skipped']:
    print(f'  skipped    {result["skipped"]} unreadable pictures')


if __name__ == '__main__':
  run_cli(main)
