"""The command `python -m vit_jax.probe MODEL --dataset=PATH`."""

import argparse
import dataclasses
import json
import os
import pathlib
import time
from typing import Any

from vit_jax.errors import UserError, run_cli
from vit_jax.probe.cache import FeatureCache
from vit_jax.probe.head import Head, fit_head, score, with_head


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.probe',
    description='Fits a linear classifier to the frozen features of a model. Features are kept, '
    'so that the next probe of the same pictures takes seconds.',
    epilog='example: python -m vit_jax.probe weights.npz --dataset=path/to/pictures '
    '--out=probe.safetensors',
  )
  add = parser.add_argument
  add('model', help="a run's workdir, a weights file or a zoo name")
  add('--dataset', required=True, help="a folder of pictures, a TFDS name or 'digits'")
  add('--train', default='train', help="split the head is fitted to, such as 'train[:90%%]'")
  add('--val', help="split the penalty is chosen on; default: 'val' where there is one besides the "
      'test split, else 5-fold cross-validation')
  add('--test', help="split scored at the end; default: 'test', else 'val'")
  add('--c', type=float, help='inverse strength of the L2 penalty; default: chosen')
  add('--out', default='', metavar='FILE.safetensors',
      help='write backbone and head as a model for predict, evaluate and the like')
  add('--classes', default='', help='use these alone, in this order, separated by commas')
  add('--per_class', type=int, default=0, help='at most so many pictures of each class; 0: all')
  add('--resplit', action='store_true', help='pool all pictures and split them anew')
  add('--split_fractions', default='0.8,0.1,0.1', help='train, val, test shares of a new split')
  add('--seed', type=int, default=0, help='of the subset, the split and the folds')
  add('--data_dir', default='', help='where prepared TFDS datasets lie')
  add('--on_error', default='raise', choices=('raise', 'skip'),
      help='what an unreadable picture does')
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
  if args.batch_size < 1:
    problems.append(f'--batch_size must be positive, got {args.batch_size}')
  try:
    args.split_fractions = tuple(float(part) for part in args.split_fractions.split(','))
  except ValueError:
    problems.append(f'--split_fractions takes shares such as 0.8,0,0.2: {args.split_fractions}')
  if problems:
    raise UserError(problems)


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
  from vit_jax.convert import download
  from vit_jax.loaded import load

  options = Dataset(
    name=args.dataset, data_dir=args.data_dir, per_class=args.per_class, resplit=args.resplit,
    classes=tuple(c.strip() for c in args.classes.split(',') if c.strip()), seed=args.seed,
    split_fractions=args.split_fractions, on_error=args.on_error, train=args.train,
  )
  dataset = options.open()
  val, test = choose_splits(args.val, args.test, dataset)
  options = dataclasses.replace(options, val=val, test=test)
  examples = {name: dataset.split(name) for name in dict.fromkeys((args.train, val, test)) if name}
  began = time.monotonic()
  loaded = load(
    args.model, model=args.architecture, pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
  )
  folder = download.cache_dir(args.cache_dir) / 'features'
  name = os.path.abspath(args.dataset) if os.path.isdir(args.dataset) else args.dataset
  cache = FeatureCache(loaded, folder, name)
  splits = {name: cache.features(e, name, args.on_error) for name, e in examples.items()}
  if any(split.computed for split in splits.values()):
    cache.save()
  features_seconds = time.monotonic() - began
  train = splits[args.train]
  began = time.monotonic()
  head = fit_head(
    train.x, train.labels, len(dataset.classes), args.c,
    (splits[val].x, splits[val].labels) if val else None, args.seed,
  )
  result = {
    **score(head, splits[test].x, splits[test].labels),
    'train_accuracy': score(head, train.x, train.labels)['accuracy'],
    'c': head.c,
    'features_seconds': round(features_seconds, 2),
    'fit_seconds': round(time.monotonic() - began, 2),
    'computed': sum(split.computed for split in splits.values()),
    'skipped': sum(split.skipped for split in splits.values()),
    'cpu_seconds': round(time.process_time(), 2),
  }
  if args.out:
    _write(args.out, loaded, head, dataset.classes, options)
  _say(args, dataset.name, test, len(train.labels), val, result)
  return 0


def _write(out: str, loaded: Any, head: Head, classes: tuple[str, ...], options: Any) -> None:
  from vit_jax import convert
  from vit_jax.config import Task

  module, variables = with_head(loaded, head)
  convert.write(
    out, variables, module, 'vit_jax',
    model=convert.description(module, loaded.config['model']['name']),
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
  print(f'{args.model} on {dataset}: {trained_on} pictures of {args.train}, '
        f'{result["examples"]} of {test}')
  print(f'  accuracy   {result["accuracy"]:.4f}')
  print(f'  top3       {result["top3"]:.4f}')
  print(f'  train      {result["train_accuracy"]:.4f}')
  print(f'  c          {result["c"]:.3g} ({chosen})')
  print(f'  seconds    {result["features_seconds"]} to load and compute {result["computed"]} new '
        f'features, {result["fit_seconds"]} to fit; {result["cpu_seconds"]} of CPU in all')
  if result['skipped']:
    print(f'  skipped    {result["skipped"]} unreadable pictures')
  if args.out:
    print(f'wrote {args.out}')


if __name__ == '__main__':
  run_cli(main)
