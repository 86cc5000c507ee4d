"""Evaluates frozen features: `python -m vit_jax.probe MODEL --dataset=PATH`."""

import argparse
import dataclasses
import json
import os
import pathlib
import time
from typing import TYPE_CHECKING, Any

from vit_jax.command_line import run_cli
from vit_jax.errors import ConfigError
from vit_jax.inference.arguments import add_weights_arguments, weights_options

if TYPE_CHECKING:
  from vit_jax.config import Dataset
  from vit_jax.evaluation.linear_probe import Head
  from vit_jax.inference.loaded import Loaded

_PLURAL = {'shots': int, 'neighbours': int, 'l2': float}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.probe',
    description='Evaluates the frozen features of a model: by a linear probe, by few-shot least '
    'squares or by k-NN. Features are cached: the next probe of the same images takes seconds.',
    epilog='example: python -m vit_jax.probe weights.npz --dataset=path/to/images '
    '--out=probe.safetensors',
  )
  add = parser.add_argument
  add('model', help="a run's workdir, a weights file or a pretrained model name")
  add('--dataset', required=True, help="a folder of images, a TFDS name or 'digits'")
  add(
    '--method',
    default='linear',
    choices=('linear', 'fewshot', 'knn'),
    help='logistic regression on all training images, closed-form least squares on a few, or k '
    'nearest neighbours',
  )
  add('--train', default='train', help="split the head is fitted to, such as 'train[:90%%]'")
  add(
    '--val',
    help="split the penalty is chosen on; default: 'val' where there is one besides the test "
    'split, else 5-fold cross-validation',
  )
  add('--test', help="split scored at the end; default: 'test', else 'val'")
  add('--c', type=float, help='linear: inverse strength of the L2 penalty; default: chosen')
  add('--shots', default='1,5,10,25', help='fewshot: training images of each class')
  add('--draws', type=int, default=3, help='fewshot: random draws')
  add(
    '--l2',
    default='1024',
    help='fewshot: L2 penalty; of several, such as 1,32,1024, the best by leave-one-out',
  )
  add('--neighbours', default='10,20', help='knn: values of k')
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
  add('--classes', default='', help='use these classes alone, in this order, separated by commas')
  add('--per_class', type=int, default=0, help='at most so many images of each class; 0: all')
  add('--resplit', action='store_true', help='pool all images and split them anew')
  add('--split_fractions', default='0.8,0.1,0.1', help='train, val, test fractions of a new split')
  add('--seed', type=int, default=0, help='of the subset, the split and the folds')
  add('--data_dir', default='', help='where prepared TFDS datasets lie')
  add(
    '--on_error',
    default='raise',
    choices=('raise', 'skip'),
    help='policy for images that cannot be decoded',
  )
  add('--batch_size', type=int, default=32, help='most images computed at once')
  add('--pretrained_dir', default='', help='folder searched for named weights before a download')
  add('--architecture', default='', help='model name, for weights whose tensors do not tell')
  add('--cache_dir', default='', help="where features are cached; default: the user's cache")
  add('--json', action='store_true', help='print one JSON object')
  add_weights_arguments(parser, classes=False)
  return parser


def _check(args: argparse.Namespace) -> None:
  problems = []
  out = pathlib.Path(args.out)
  if args.out and out.suffix != '.safetensors':
    problems.append(f'--out must end in .safetensors, got {args.out}')
  if args.out and not out.parent.is_dir():
    problems.append(f'--out: there is no folder {out.parent}')
  if args.out and args.method != 'linear':
    problems.append(f'--out needs --method=linear: {args.method} makes no model')
  if args.c is not None and not args.c > 0:
    problems.append(f'--c must be positive, got {args.c}')
  for name, kind in _PLURAL.items():
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
  fractions = _numbers(args.split_fractions, float)
  if not fractions:
    problems.append(f'--split_fractions takes numbers such as 0.8,0,0.2: {args.split_fractions}')
  args.split_fractions = fractions
  if problems:
    raise ConfigError(problems)


def _numbers(text: str, kind: type) -> tuple:
  """'1,5' as numbers; () for anything else."""
  try:
    return tuple(kind(part) for part in text.split(','))
  except ValueError:
    return ()


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args = _parser().parse_args(argv)
  _check(args)
  opening = weights_options(args)
  from vit_jax.config import Dataset
  from vit_jax.data.duplicates import warn_of_duplicates, warn_of_overlap
  from vit_jax.evaluation import frozen_features
  from vit_jax.evaluation.feature_cache import FeatureCache
  from vit_jax.files import cache_folder
  from vit_jax.inference.loaded import load

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
  val, test = frozen_features.choose_splits(args.val, args.test, dataset)
  options = dataclasses.replace(options, val=val, test=test)
  splits = {name: dataset.split(name) for name in dict.fromkeys((args.train, val, test)) if name}
  specs = {'train': args.train, 'val': val, 'test': test}
  roles = {role: splits[spec] for role, spec in specs.items() if spec}
  warn_of_overlap(roles, {role: f'--{role}={spec}' for role, spec in specs.items()})
  warn_of_duplicates(dataset.name, roles)
  began = time.monotonic()
  loaded = load(
    args.model,
    model=args.architecture,
    pretrained_dir=args.pretrained_dir,
    batch_size=args.batch_size,
    **opening,
  )
  folder = cache_folder(args.cache_dir) / 'features'
  name = os.path.abspath(args.dataset) if os.path.isdir(args.dataset) else args.dataset
  cache = FeatureCache(loaded, folder, name)
  classes = len(dataset.classes)
  more: dict[str, Any] = {}
  if args.method == 'fewshot':
    found = frozen_features.few_shot_scores(
      cache,
      splits[args.train],
      splits[test],
      classes,
      shots=args.shots,
      draws=args.draws,
      penalties=args.l2,
      seed=args.seed,
      on_error=args.on_error,
    )
  elif args.method == 'knn':
    found = frozen_features.knn_scores(
      cache,
      splits[args.train],
      splits[test],
      classes,
      neighbours=args.neighbours,
      temperature=args.temperature,
      on_error=args.on_error,
    )
  else:
    head, found, more = frozen_features.linear_probe_scores(
      cache, splits, args.train, val, test, classes, c=args.c, seed=args.seed,
      on_error=args.on_error,
    )  # fmt: skip
    more['chosen'] = 'given' if args.c else f'chosen on {val}' if val else 'by cross-validation'
    if args.out:
      _write(args.out, loaded, head, dataset.classes, options)
  more['seconds'] = round(time.monotonic() - began, 2)
  more['cpu_seconds'] = round(time.process_time(), 2)
  _print(args, dataset.name, test, found, more)
  return 0


def _write(
  out: str, loaded: 'Loaded', head: 'Head', classes: tuple[str, ...], options: 'Dataset'
) -> None:
  from vit_jax.config import schema
  from vit_jax.evaluation.linear_probe import with_head
  from vit_jax.models.shapes import description
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
    config={
      'dataset': dataclasses.asdict(options),
      'task': dataclasses.asdict(schema()().task),
    },
  )


def _print(
  args: argparse.Namespace, dataset: str, test: str, found: Any, more: dict[str, Any]
) -> None:
  counts = {k: v for k, v in dataclasses.asdict(found).items() if k != 'scores'}
  linear = found.scores.get('linear')
  if args.json:
    scores = linear or {'scores': found.scores}
    print(json.dumps({'model': args.model, 'dataset': dataset, 'split': test, **scores, **counts,
                      **more}))  # fmt: skip
    return
  print(
    f'{args.model} on {dataset}: {found.trained_on} images of {args.train}, {found.examples} of '
    f'{test}'
  )
  if linear:
    print(f'  accuracy   {linear["accuracy"]:.4f}')
    if 'top3' in linear:
      print(f'  top3       {linear["top3"]:.4f}')
    print(f'  train      {more["train_accuracy"]:.4f}')
    print(f'  c          {more["c"]:.3g} ({more["chosen"]})')
  else:
    for name, score in found.scores.items():
      spread = f'  (+- {score["std"]:.4f} over {args.draws} draws)' if 'std' in score else ''
      print(f'  {name:10} {score["accuracy"]:.4f}{spread}')
  print(
    f'  seconds    {more["seconds"]}, {found.computed} new features; {more["cpu_seconds"]} of CPU'
  )
  if found.skipped:
    print(f'  skipped    {found.skipped} images that cannot be decoded')
  if args.out:
    print(f'wrote {args.out}')


if __name__ == '__main__':
  run_cli(main)
