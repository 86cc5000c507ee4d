"""Converts weights between formats: `python -m vit_jax.convert SOURCE TARGET --model=NAME`."""

import argparse
import importlib
import os
import pathlib
from typing import TYPE_CHECKING, Any

from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.errors import ConfigError, Problems, StorageError, WeightsError
from vit_jax.files import check_new_file, check_new_folder, path_of
from vit_jax.inference.arguments import (
  check_model_name,
  fields_of,
  pretrained_dir_option,
  weights_arguments,
  weights_options,
)
from vit_jax.options import LARGEST_SIDE, Rule, checked, from_text
from vit_jax.weights.formats.base import FORMATS, ending_of

if TYPE_CHECKING:
  from vit_jax.weights.reading import Weights

# The public address of reading and writing weights; nothing is imported before it is used.
_LAZY = {
  'Options': 'weights.loading',
  'Weights': 'weights.reading',
  'build': 'weights.building',
  'description': 'models.shapes',
  'fit': 'weights.loading',
  'load': 'weights.loading',
  'load_with_report': 'weights.loading',
  'model_fields': 'weights.building',
  'read': 'weights.reading',
  'write': 'weights.saving',
}


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'vit_jax.{_LAZY[name]}'), name)


def _parser() -> Parser:
  parser = Parser(
    'convert',
    description='Converts weights; every tensor that is left over on either side is an error.',
    epilog='example: python -m vit_jax.convert ViT-B_16.npz vit_b16/ --model=vit_b16 --to=hf',
  )
  add = parser.add_argument
  add('source', nargs='?', help="a file, a model's folder, a workdir or a pretrained model name")
  add('target', nargs='?', help='a file or a folder, see --to')
  listed = 'show the pretrained models that can be downloaded, as text or as docs/models.md'
  add('--list', nargs='?', const='text', choices=('text', 'markdown'), help=listed)
  option = parser.option
  named = 'model name; needed where the tensors do not show it'
  option('--model', str, named, '', parse=check_model_name)
  kinds = '; '.join(f'{name}: {format.target_kind}' for name, format in FORMATS.items())
  by_ending = ', '.join(f'{f.ending}: {name}' for name, f in FORMATS.items() if f.ending)
  to = f'format and kind of TARGET ({kinds}); default: by its ending ({by_ending})'
  option('--to', str, to, choices=tuple(FORMATS))
  add('--overwrite', action='store_true', help='replace a TARGET that exists')
  add(
    '--from',
    dest='format',
    default='auto',
    choices=('auto', *FORMATS),
    help='format of SOURCE (default: recognised)',
  )
  head = 'reset: zeros, for --num_classes'
  option('--head', str, head, 'keep', choices=('keep', 'reset'))
  classes = "classes of the new head; default: the file's"
  option('--num_classes', int, classes, low=0, high=1 << 24)
  add('--image_size', nargs='+', metavar='PIXELS', help='side, or height and width')
  zoom = 'interpolation of position embeddings'
  option('--resize', str, zoom, 'bilinear', choices=('bilinear', 'bicubic'))
  add('--set', action='append', default=[], metavar='FIELD=VALUE', help='a field of the model')
  pretrained_dir_option(parser)
  option('--cache_dir', str, 'where downloads are kept; default: VIT_JAX_CACHE', '', path=True)
  weights_arguments(parser)
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, wrong = _parser().read(argv)
  if args.list and not wrong:
    from vit_jax.weights import hub

    show(hub.markdown() if args.list == 'markdown' else hub.table())
    return 0
  problems = Problems()
  problems.add(wrong)
  to, size, fields, opening = '', None, {}, {}
  with problems.collect():
    if not (args.source or '').strip() or not (args.target or '').strip():
      raise ConfigError('expected SOURCE and TARGET, see --help; --list shows pretrained models')
    with problems.collect():
      args.source = path_of('SOURCE', args.source, remote=True)
    args.target = path_of('TARGET', args.target)
    if os.path.realpath(args.source) == os.path.realpath(args.target):
      raise ConfigError(f'SOURCE and TARGET are the same: {args.target}')
    to = args.to or _format_of_target(args.target)
    FORMATS[to].check_name(args.target)
    _check_target(args.target, to, args.overwrite)
  with problems.collect():
    size = _image_size(args.image_size)
  with problems.collect():
    fields = fields_of(args.set)
  with problems.collect():
    opening = weights_options(args)
  problems.raise_if_any()
  _convert(args, to, size, fields, opening)
  return 0


def _check_target(target: str, to: str, overwrite: bool) -> None:
  """Raises a `StorageError` unless the target can be written without the loss of a file."""
  is_folder = FORMATS[to].is_folder(target)
  try:
    (check_new_folder if is_folder else check_new_file)(target)
  except ConfigError as e:
    raise StorageError(f'cannot write TARGET {target}: {e}') from None
  there = [str(file) for file in FORMATS[to].files(pathlib.Path(target)) if os.path.lexists(file)]
  if there and not overwrite:
    raise StorageError(
      f'{" and ".join(there)} would be replaced: name another TARGET, or add --overwrite'
    )


def _convert(
  args: argparse.Namespace,
  to: str,
  size: tuple[int, int] | None,
  fields: dict[str, Any],
  opening: dict[str, Any],
) -> None:
  from vit_jax.models.shapes import description
  from vit_jax.weights import loading, preprocessing
  from vit_jax.weights.reading import read
  from vit_jax.weights.saving import export_of

  options = loading.Options(
    args.head,
    args.resize,
    allow_invalid=args.allow_invalid,
    model=args.model,
    model_option='--model',
  )
  weights = read(
    args.source,
    args.format,
    pretrained_dir=args.pretrained_dir,
    cache_dir=args.cache_dir,
    submodel=args.submodel,
  )
  module = _module(args, weights, to, fields)
  name = args.model or weights.model['name']
  classes = weights.classes_for(module.num_classes or 0, opening.get('classes'))
  preprocess = weights.preprocess_for(name, opening.get('input_range'))
  if size:
    preprocess = preprocessing.at_size(preprocess, size)
  variables, report = loading.fit(weights, module, preprocess.image_size, options)
  show(report)
  # A new head is of no task that was learned.
  left_out = ('model',) if args.head == 'keep' else ('model', 'task')
  export = export_of(
    variables,
    module,
    to,
    model=description(module, name),
    classes=classes,
    preprocess=preprocess,
    config={k: v for k, v in weights.config.items() if k not in left_out},
    trained_on=weights.trained_on.images(),
  )
  target = pathlib.Path(args.target)
  files = FORMATS[to].write(target, export)
  for note in FORMATS[to].notes(target, export):
    show(f'note: {note}')
  show(f'wrote {", ".join(map(str, files))} ({to})')


def _format_of_target(target: str) -> str:
  for format in FORMATS.values():
    if format.ending and target.lower().endswith(format.ending):
      return format.name
  ending = ending_of(target)
  if ending:
    endings = ', '.join(sorted({f.file_ending for f in FORMATS.values() if f.writes_file}))
    raise ConfigError(f'{target!r}: {ending} files are not written, only {endings}; see --to')
  raise ConfigError(f'cannot tell the format of {target!r}: add --to={"|".join(FORMATS)}')


def _image_size(words: list[str] | None) -> tuple[int, int] | None:
  if not words:
    return None
  rule = Rule(low=1, high=LARGEST_SIDE, lengths=(1, 2))
  text = ','.join(words)
  sides = checked('--image_size', from_text(text, tuple[int, ...]), tuple[int, ...], rule)
  return sides[0], sides[-1]


def _module(args: argparse.Namespace, weights: 'Weights', to: str, fields: dict[str, Any]) -> Any:
  """The model of the weights, with the heads of their task where these are kept."""
  from vit_jax import tasks
  from vit_jax.weights.building import build
  from vit_jax.weights.formats.base import OWN_NAMES

  module = build(weights, args.model, args.head, args.num_classes, model_option='--model', **fields)
  if args.head == 'reset' or not module.num_classes:
    return module
  wrapped = tasks.of_config(weights.config, module.num_classes).wrap(module)
  if wrapped is not module and FORMATS[to].naming != OWN_NAMES:
    raise WeightsError(
      f'{args.source} has heads that {to} has no place for: keep them with --to=vit_jax, or leave '
      'them out with --head=reset'
    )
  return wrapped


if __name__ == '__main__':
  run_cli(main)
