"""Converts weights between formats: `python -m vit_jax.convert SOURCE TARGET --model=NAME`."""

import argparse
import ast
import importlib

from vit_jax.errors import UserError, run_cli

_FORMATS = (
  'npz',
  'big_vision',
  'timm',
  'hf',
  'keras',
  'vit_jax',
)  # tables.FORMATS, which loads more


# The public address of reading and writing weights; nothing is imported before it is used.
_LAZY = {
  'Options': 'loading',
  'Weights': 'reading',
  'build': 'building',
  'description': 'loading',
  'fit': 'loading',
  'load': 'loading',
  'load_with_report': 'loading',
  'model_fields': 'building',
  'read': 'reading',
  'write': 'saving',
}


def __getattr__(name: str):
  if name not in _LAZY:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'vit_jax.weights.{_LAZY[name]}'), name)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.convert',
    description='Converts weights; every tensor that is left over on either side is an error.',
    epilog='example: python -m vit_jax.convert ViT-B_16.npz vit_b16/ --model=vit_b16 --to=hf',
  )
  add = parser.add_argument
  add('source', nargs='?', help="a file, a model's folder, a run's workdir or a zoo name")
  add('target', nargs='?', help='a file; a folder for hf, and for timm with its config')
  add('--list', action='store_true', help='show the named weights that can be downloaded')
  add('--model', default='', help='model name; needed where the tensors do not tell')
  add('--to', choices=_FORMATS, help='default: by the ending of TARGET')
  add('--from', dest='format', default='auto', choices=('auto', *_FORMATS), help='format of SOURCE')
  add('--head', default='keep', choices=('keep', 'reset'), help='reset: zeros, for --num_classes')
  add('--num_classes', type=int, help="classes of the new head; default: the file's")
  add('--image_size', type=int, nargs='+', metavar='PIXELS', help='side, or height and width')
  add('--resize', default='bilinear', choices=('bilinear', 'bicubic'), help='position embeddings')
  add('--set', action='append', default=[], metavar='FIELD=VALUE', help='a field of the model')
  add('--pretrained_dir', default='', help='folder searched for named weights before a download')
  add('--cache_dir', default='', help='where downloads are kept (default: VIT_JAX_CACHE)')
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  parser = _parser()
  args = parser.parse_args(argv)
  if args.list:
    from vit_jax.weights import hub

    print(hub.table())
    return 0
  if not args.source or not args.target:
    raise UserError('expected SOURCE and TARGET, see --help; --list shows named weights')
  _convert(args)
  return 0


def _format_of_target(target: str, to: str | None) -> str:
  if to:
    return to
  endings = {'.npz': 'npz', '.safetensors': 'vit_jax', '.h5': 'keras'}
  for ending, format in endings.items():
    if target.endswith(ending):
      return format
  raise UserError(f'cannot tell the format of {target!r}: add --to={"|".join(_FORMATS)}')


def _fields(pairs: list[str]) -> dict:
  fields = {}
  for pair in pairs:
    name, equals, text = pair.partition('=')
    if not equals:
      raise UserError(f'--set expects FIELD=VALUE, got {pair!r}')
    try:
      fields[name] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      fields[name] = text
  return fields


def _convert(args: argparse.Namespace) -> None:
  to = _format_of_target(args.target, args.to)
  from vit_jax import tasks
  from vit_jax.weights import loading, preprocessing
  from vit_jax.weights.building import build
  from vit_jax.weights.reading import read
  from vit_jax.weights.saving import write

  if args.image_size and len(args.image_size) > 2:
    raise UserError('--image_size expects one or two numbers')
  weights = read(
    args.source, args.format, pretrained_dir=args.pretrained_dir, cache_dir=args.cache_dir
  )
  overrides = _fields(args.set)
  module = build(weights, args.model, args.head, args.num_classes, **overrides)
  if args.head == 'keep' and module.num_classes:
    wrapped = tasks.of_config(weights.config, module.num_classes).wrap(module)
    if wrapped is not module and to != 'vit_jax':
      raise UserError(
        f'{args.source} has heads that {to} has no place for: keep them with '
        '--to=vit_jax, or leave them out with --head=reset'
      )
    module = wrapped
  preprocess = weights.preprocess or preprocessing.usual(
    args.model or weights.model['name'], weights.format, (224, 224)
  )
  if args.image_size:
    preprocess = preprocessing.at_size(preprocess, tuple(args.image_size * 2)[:2])
  variables, report = loading.fit(
    weights, module, preprocess.image_size, loading.Options(args.head, args.resize)
  )
  print(report)
  model = loading.description(module, args.model or weights.model['name'])
  classes = weights.classes if module.num_classes == len(weights.classes) else ()
  files = write(
    args.target,
    variables,
    module,
    to,
    model=model,
    classes=classes,
    preprocess=preprocess,
    # A new head is of no task that was learned.
    config={
      k: v
      for k, v in weights.config.items()
      if k != 'model' and (k != 'task' or args.head == 'keep')
    },
  )
  for note in notes(module, to):
    print(f'note: {note}')
  print(f'wrote {", ".join(map(str, files))} ({to})')


def notes(module, to: str) -> list[str]:
  """What a format's own programs would compute otherwise unless they are told."""
  found = []
  if to in ('npz', 'big_vision') and getattr(module, 'gelu', 'tanh') != 'tanh':
    found.append(
      'these weights use the exact GELU; the official code computes the tanh approximation'
    )
  if to == 'timm' and getattr(module, 'gelu', 'exact') == 'tanh':
    found.append("build it in timm with act_layer='gelu_tanh', as config.json says")
  return found


if __name__ == '__main__':
  run_cli(main)
