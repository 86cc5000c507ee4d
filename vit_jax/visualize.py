"""Visualizations of a model: `python -m vit_jax.visualize MODEL IMAGE... --out=DIR`."""

import pathlib
import re
from collections.abc import Sequence

from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import Console, show
from vit_jax.data.image_files import find_images
from vit_jax.errors import ConfigError, counted, did_you_mean
from vit_jax.files import check_new_folder
from vit_jax.inference.arguments import image_parser, weights_options
from vit_jax.options import LARGEST_SIDE, Rule, checked
from vit_jax.visualization.request import FUSIONS, OLD_NAMES, WHATS, ImageSize, Request

_DESCRIPTION = """\
Shows what a model attends to in images, and what it learned. Writes PNGs with captions and an
index.html that holds them all.

MODEL is a workdir, a weights file or the name of a pretrained model; IMAGE is a file, a folder of
images or a glob.

what there is (--what; all that the model has, unless you choose):
  attention    weights of every block and head, for the class token or --patch
  rollout      attention through all blocks, over the image
  gradient     class attribution: rollout for the two most confident classes, or --class
  token_pca    principal components of patch tokens as colors, block by block
  channels     single channels of tokens, queries, keys and values
  nearest      most similar images by embedding, beside those by pixels
  positions    similarity of position embeddings
  filters      principal components of the first filters
  distance     mean attention distance of each head, by depth

examples:
  python -m vit_jax.visualize runs/dogs dog.jpg --out=figures
  python -m vit_jax.visualize weights.npz cat.jpg --out=figures --what=attention --patch=4,7
  python -m vit_jax.visualize weights.npz cat.jpg --out=figures --what=gradient --class=tabby
  python -m vit_jax.visualize runs/dogs images/ --out=figures --what=nearest
"""


def _parser() -> Parser:
  parser = image_parser('visualize', _DESCRIPTION)
  parser.option(
    '--out',
    str,
    'folder for the PNGs and index.html',
    ...,
    metavar='DIR',
    path=True,
    parse=check_new_folder,
  )
  add = parser.add_argument
  add('--what', metavar='A,B', help='of the list above')
  add('--block', metavar='I,J', help='attention of these blocks; the last is shown by channels')
  add('--head', metavar='I,J', help='attention of these heads; the first is shown by channels')
  add('--patch', metavar='ROW,COL', action='append', default=[],
      help='a query patch instead of the class token; may be repeated')  # fmt: skip
  add('--class', metavar='NAME', dest='classes', action='append', default=[],
      help='class of gradient, by name or number; may be repeated')  # fmt: skip
  add('--fusion', metavar='A,B', help='how rollout fuses heads: mean, max, min (all three)')
  discarded = 'share of the lowest attention that rollout leaves out'
  parser.option('--discard', float, discarded, 0.0, metavar='SHARE', low=0, below=1)
  add('--channel', metavar='I,J', help='channels shown (those that vary most)')
  add('--image_size', metavar='H,W', help="pixels that the model sees, or 'whole': the image "
      'uncropped, in its own shape (as the model was trained)')  # fmt: skip
  searched = 'images searched for the nearest (the IMAGEs)'
  parser.option('--gallery', str, searched, metavar='DIR', path=True)
  parser.option('--count', int, 'nearest images shown', 5, metavar='K', low=1, high=1000)
  return parser


def _numbers(option: str, text: str | None) -> tuple[int, ...] | None:
  if text is None:
    return None
  if not re.fullmatch(r'\d+(,\d+)*', text.replace(' ', '')):
    raise ConfigError(f'--{option} takes numbers such as 3 or 0,5, got {text!r}')
  return tuple(int(t) for t in text.split(','))


def _pair(option: str, text: str) -> tuple[int, int]:
  numbers = _numbers(option, text) or ()
  if len(numbers) != 2:
    raise ConfigError(f'--{option} takes 2 numbers, got {text!r}')
  return numbers[0], numbers[1]


def _size(text: str | None) -> ImageSize:
  if text is None:
    return None
  if text == 'whole':
    return 'whole'
  size = _pair('image_size', text)
  checked('--image_size', size, tuple[int, int], Rule(low=1, high=LARGEST_SIDE))
  return size


def _classes(names: list[str]) -> tuple[str, ...]:
  if not all(name.strip() for name in names):
    raise ConfigError('--class is empty: name a class, or its number')
  return tuple(names)


def _names(option: str, text: str | None, valid: tuple[str, ...]) -> tuple[str, ...]:
  if text is None:
    return valid
  names = tuple(OLD_NAMES.get(t.strip(), t.strip()) for t in text.split(','))
  wrong = [f'--{option}={n}: {did_you_mean(n, valid)}' for n in names if n not in valid]
  if wrong:
    raise ConfigError(wrong)
  return names


def _files(patterns: Sequence[str]) -> tuple[pathlib.Path, ...]:
  """The images that files, folders and globs stand for; a missing one is reported at once."""
  found = tuple(map(pathlib.Path, find_images(list(patterns))))
  missing = [f'no such image: {path}' for path in found if not path.is_file()]
  if missing:
    raise ConfigError(missing)
  return found


def request(argv: list[str] | None = None) -> Request:
  """Reads the command line.

  Raises:
    ConfigError: all that is wrong with it.
  """
  args, values = _parser().parse_with(
    argv,
    images=lambda args: _files(args.images or ()),
    gallery=lambda args: _files([args.gallery] if args.gallery else []),
    what=lambda args: _names('what', args.what, WHATS),
    fusions=lambda args: _names('fusion', args.fusion, FUSIONS),
    blocks=lambda args: _numbers('block', args.block),
    heads=lambda args: _numbers('head', args.head),
    channels=lambda args: _numbers('channel', args.channel),
    patches=lambda args: tuple(_pair('patch', text) for text in args.patch),
    image_size=lambda args: _size(args.image_size),
    opening=weights_options,
    classes=lambda args: _classes(args.classes),
  )
  return Request(
    model=args.model,
    out=pathlib.Path(args.out),
    explicit=args.what is not None,
    discard=args.discard,
    count=args.count,
    architecture=args.architecture,
    pretrained_dir=args.pretrained_dir,
    **values,
  )


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  wanted = request(argv)
  from vit_jax.visualization.command import run  # mistakes are reported before JAX is imported

  with Console():
    result = run(wanted)
  show(f'{counted(result.figures, "figure")}: open {result.page}')
  return int(not result.complete)


if __name__ == '__main__':
  run_cli(main)
