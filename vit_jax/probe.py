"""Evaluates frozen features: `python -m vit_jax.probe MODEL --dataset=PATH`."""

import argparse
import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import processes
from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import align, show
from vit_jax.errors import ConfigError, counted, one_line
from vit_jax.files import check_new_file
from vit_jax.inference.arguments import (
  ON_ERROR,
  batch_option,
  load_model,
  model_option,
  opening_options,
  weights_arguments,
  weights_options,
)

if TYPE_CHECKING:
  from vit_jax.config import Dataset
  from vit_jax.evaluation.linear_probe import Head
  from vit_jax.inference.loaded import Loaded

log = logging.getLogger(__name__)

_OF_METHOD = {
  'linear': ('c',),
  'fewshot': ('shots', 'draws', 'l2'),
  'knn': ('neighbours', 'temperature'),
}


def _parser() -> Parser:
  parser = Parser(
    'probe',
    description='Evaluates the frozen features of a model: by a linear probe, by few-shot least\n'
    'squares or by k-NN. Features are cached: the next probe of the same images takes seconds.',
    epilog='examples:\n  python -m vit_jax.probe vit_s16.augreg_i21k --dataset=path/to/images\n'
    '  python -m vit_jax.probe weights.npz --dataset=path/to/images --out=probe.safetensors',
  )
  model_option(parser)
  add = parser.option
  add(
    '--dataset',
    str,
    "a folder of images, a TFDS name, 'digits' or 'shapes'",
    ...,
    path=True,
    remote=True,
  )
  add(
    '--method',
    str,
    'logistic regression on all training images, closed-form least squares on a few, or k nearest '
    'neighbours',
    'linear',
    choices=('linear', 'fewshot', 'knn'),
  )
  add('--train', str, "split the head is fitted to, such as 'train[:90%]'", 'train')
  add(
    '--val',
    str,
    "split the penalty is chosen on; default: 'val' where there is one besides the test split, "
    'else 5-fold cross-validation',
  )
  add('--test', str, "split scored at the end; default: 'test', else 'val'")
  strength = 'linear: inverse strength of the L2 penalty; default: chosen'
  add('--c', float, strength, above=0, high=1e12)
  few = 'fewshot: training images of each class'
  add('--shots', tuple[int, ...], few, (1, 5, 10, 25), low=1, high=10**6)
  add('--draws', int, 'fewshot: random draws', 3, low=1, high=1000)
  add(
    '--l2',
    tuple[float, ...],
    'fewshot: L2 penalty; of several, such as 1,32,1024, the best by leave-one-out',
    (1024.0,),
    above=0,
    high=1e12,
  )
  add('--neighbours', tuple[int, ...], 'knn: values of k', (10, 20), low=1, high=10**6)
  weighs = 'knn: a neighbour weighs exp(cosine similarity / temperature)'
  add('--temperature', float, weighs, 0.07, low=1e-3, high=1000)
  add(
    '--out',
    str,
    'linear: write backbone and head as a model for predict, evaluate and the like',
    '',
    metavar='FILE.safetensors',
    path=True,
    parse=functools.partial(check_new_file, ending='.safetensors'),
  )
  add('--classes', tuple[str, ...], 'use these classes alone, in this order; empty: all', ())
  add('--per_class', int, 'at most so many images of each class; 0: all', 0, low=0)
  parser.add_argument('--resplit', action='store_true', help='pool all images, split them anew')
  add(
    '--split_fractions',
    tuple[float, ...],
    'train, val, test fractions of a new split',
    (0.8, 0.1, 0.1),
    low=0,
    high=1,
    lengths=(3,),
  )
  add('--seed', int, 'of the subset, the split and the folds', 0, low=0, high=2**32 - 1)
  add('--data_dir', str, 'where prepared TFDS datasets lie', '', path=True)
  add('--on_error', str, 'policy for images that cannot be decoded', 'raise', choices=ON_ERROR)
  batch_option(parser)
  opening_options(parser)
  add('--cache_dir', str, "where features are cached; default: the user's cache", '', path=True)
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  weights_arguments(parser, classes=False)
  processes.flags(parser)
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  parser = _parser()
  args, made = parser.parse_with(
    argv, out=_check_out, opening=weights_options, place=processes.check
  )
  status = processes.start('probe', args, argv)
  if status is not None:
    return status
  for flag in (f for method, flags in _OF_METHOD.items() if method != args.method for f in flags):
    if getattr(args, flag) != parser.get_default(flag):
      log.warning('--%s has no effect with --method=%s', flag, args.method)
  from vit_jax.config import Dataset
  from vit_jax.data.duplicates import warn_of_duplicates, warn_of_overlap
  from vit_jax.data.sources import needs_download
  from vit_jax.evaluation import frozen_features
  from vit_jax.evaluation.feature_cache import FeatureCache
  from vit_jax.files import cache_folder

  options = Dataset(
    name=args.dataset,
    data_dir=args.data_dir,
    per_class=args.per_class,
    resplit=args.resplit,
    classes=args.classes,
    seed=args.seed,
    split_fractions=args.split_fractions,
    on_error=args.on_error,
    train=args.train,
  )
  open_model = functools.partial(load_model, args, options=made['opening'])
  # What is here is opened first: a mistake in its name costs no download.
  loaded = open_model() if needs_download(args.dataset, args.data_dir) else None
  dataset = options.open()
  val, test = frozen_features.choose_splits(args.val, args.test, dataset)
  options = dataclasses.replace(options, val=val, test=test)
  splits = {name: dataset.split(name) for name in dict.fromkeys((args.train, val, test)) if name}
  specs = {'train': args.train, 'val': val, 'test': test}
  roles = {role: splits[spec] for role, spec in specs.items() if spec}
  warn_of_overlap(roles, {role: f'--{role}={spec}' for role, spec in specs.items()})
  warn_of_duplicates(dataset.name, roles)
  began = time.monotonic()
  loaded = loaded or open_model()
  seen = 'the model saw them before its features were frozen'
  loaded.trained_on.warn(dataset.name, splits[test], f'{test} images', seen)
  folder = cache_folder(args.cache_dir) / 'features'
  name = os.path.abspath(args.dataset) if os.path.isdir(args.dataset) else args.dataset
  cache = FeatureCache(loaded, folder, name)
  classes = len(dataset.classes)
  replaced = ', in place of an older file' if args.out and os.path.exists(args.out) else ''
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
    if args.out and not processes.index():
      trained_on = loaded.trained_on.and_of(dataset.name, splits[args.train])
      _write(args.out, loaded, head, dataset.classes, options, trained_on)
  more['seconds'] = round(time.monotonic() - began, 2)
  more['cpu_seconds'] = round(time.process_time(), 2)
  _print(args, dataset.name, test, found, more, replaced)
  return 0


def _check_out(args: argparse.Namespace) -> None:
  if args.out and args.method != 'linear':
    raise ConfigError(f'--out needs --method=linear: {args.method} makes no model')


def _write(
  out: str,
  loaded: 'Loaded',
  head: 'Head',
  classes: tuple[str, ...],
  options: 'Dataset',
  trained_on: Mapping[str, str],
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
    trained_on=trained_on,
  )


def _print(
  args: argparse.Namespace, dataset: str, test: str, found: Any, more: dict[str, Any], replaced: str
) -> None:
  from vit_jax.tasks import metric_text  # --help must not wait for JAX

  counts = {k: v for k, v in dataclasses.asdict(found).items() if k != 'scores'}
  linear = found.scores.get('linear')
  if args.json:
    scores = linear or {'scores': found.scores}
    show(json.dumps({'model': args.model, 'dataset': dataset, 'split': test, **scores, **counts,
                      **more}))  # fmt: skip
    return
  show(
    f'{args.model} on {one_line(dataset)}: {counted(found.trained_on, "image")} of {args.train}, '
    f'{found.examples} of {test}'
  )
  rows: list[list[str]] = []
  if linear:
    rows.append(['accuracy', metric_text('accuracy', linear['accuracy'])])
    if 'top3' in linear:
      rows.append(['top3', metric_text('top3', linear['top3'])])
    rows.append(['training accuracy', metric_text('accuracy', more['train_accuracy'])])
    rows.append(['c', f'{more["c"]:.3g}, the inverse strength of the penalty ({more["chosen"]})'])
  else:
    for name, score in found.scores.items():
      draws = counted(args.draws, 'draw')
      spread = f'  (+- {100 * score["std"]:.1f} over {draws})' if 'std' in score else ''
      rows.append([name, f'{metric_text(name, score["accuracy"])}{spread}'])
  computed = f'features of {counted(found.computed, "image")} computed, the others from the cache'
  rows.append(['seconds', f'{more["seconds"]}, {more["cpu_seconds"]} of CPU time; {computed}'])
  if found.skipped:
    rows.append(['skipped', f'{counted(found.skipped, "image")} that cannot be decoded'])
  show(align([['', *row] for row in rows]))
  if args.out:
    show(f'wrote {args.out}{replaced}')


if __name__ == '__main__':
  run_cli(main)
