"""Pictures of what a model looks at: `python -m vit_jax.visualize MODEL IMAGE... --out=DIR`."""

import argparse
import dataclasses
import pathlib
import re

from vit_jax.data.image_files import find_images
from vit_jax.errors import UserError, did_you_mean, run_cli

_DESCRIPTION = """\
Shows what a model looks at in pictures, and what it learned. Writes PNGs with captions and an
index.html that holds them all.

MODEL is a workdir, a weights file or a zoo name; IMAGE is a file, a folder of pictures or a glob.

what there is (--what; all that the model has, unless you choose):
  attention    weights of every block and head, for the class token or --patch
  rollout      attention through all blocks, over the picture
  gradient     the same for a class: the two likeliest, or --class
  colours      principal components of patch tokens as colours, block by block
  channels     single channels of tokens, queries, keys and values
  nearest      most alike pictures by embedding, beside those by pixels
  positions    similarity of position embeddings
  filters      principal components of the first filters
  distance     how far each head looks, by depth

examples:
  python -m vit_jax.visualize runs/dogs dog.jpg --out=seen
  python -m vit_jax.visualize weights.npz cat.jpg --out=seen --what=attention --patch=4,7 --block=11
  python -m vit_jax.visualize weights.npz cat.jpg --out=seen --what=gradient --class=tabby
  python -m vit_jax.visualize runs/dogs pictures/ --out=seen --what=nearest
"""

WHATS = (
  'attention',
  'rollout',
  'gradient',
  'colours',
  'channels',
  'nearest',
  'positions',
  'filters',
  'distance',
)
FUSIONS = ('mean', 'max', 'min')


@dataclasses.dataclass(frozen=True)
class Request:
  """The command line, read and checked as far as it can be without the model.

  Args:
    model: workdir, weights file or zoo name.
    images: files.
    out: folder for the results.
    what: names of `WHATS`; explicit says whether the user chose them.
    blocks, heads, channels: numbers, None for all (blocks, heads) or the liveliest (channels).
    patches: (row, column) of asking patches; empty for the class token.
    classes: names or numbers; empty for the likeliest.
    fusions: names of `FUSIONS`.
    discard: share of the attention dropped by rollout.
    image_size: (height, width) in pixels, 'whole', or None for the model's own.
    gallery: files to search for nearest pictures; empty for the images themselves.
    count: how many nearest pictures.
    architecture, pretrained_dir: as `vit_jax.load` takes them.
  """

  model: str
  images: tuple[pathlib.Path, ...]
  out: pathlib.Path
  what: tuple[str, ...] = WHATS
  explicit: bool = False
  blocks: tuple[int, ...] | None = None
  heads: tuple[int, ...] | None = None
  channels: tuple[int, ...] | None = None
  patches: tuple[tuple[int, int], ...] = ()
  classes: tuple[str, ...] = ()
  fusions: tuple[str, ...] = FUSIONS
  discard: float = 0.0
  image_size: tuple[int, int] | str | None = None
  gallery: tuple[pathlib.Path, ...] = ()
  count: int = 5
  architecture: str = ''
  pretrained_dir: str = ''


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m vit_jax.visualize',
    description=_DESCRIPTION,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('model', metavar='MODEL', help='workdir, weights file or zoo name')
  add('images', metavar='IMAGE', nargs='+', help='files, folders (searched deeply) or globs')
  add('--out', required=True, metavar='DIR', help='folder for the PNGs and index.html')
  add('--what', metavar='A,B', help='of the list above')
  add('--block', metavar='I,J', help='attention of these blocks; the last is shown by channels')
  add('--head', metavar='I,J', help='attention of these heads; the first is shown by channels')
  add('--patch', metavar='ROW,COL', action='append', default=[],
      help='a patch instead of the class token; may be repeated')  # fmt: skip
  add('--class', metavar='NAME', dest='classes', action='append', default=[],
      help='class of gradient, by name or number; may be repeated')  # fmt: skip
  add('--fusion', metavar='A,B', help='how rollout joins heads: mean, max, min (all three)')
  add('--discard', type=float, default=0.0, metavar='SHARE',
      help='of the lowest attention that rollout leaves out, 0 to below 1 (0)')  # fmt: skip
  add('--channel', metavar='I,J', help='channels shown (those that vary most)')
  add('--image_size', metavar='H,W', help="pixels that the model sees, or 'whole': the picture "
      'uncropped, in its own shape (as the model was trained)')  # fmt: skip
  add('--gallery', metavar='DIR', help='pictures searched for the nearest (the IMAGEs)')
  add('--count', type=int, default=5, metavar='K', help='nearest pictures shown (5)')
  add('--architecture', default='', help='model name, for weights whose tensors do not tell')
  add('--pretrained_dir', default='', help='folder searched for named weights before a download')
  return parser


def _numbers(option: str, text: str | None, exactly: int | None = None) -> tuple[int, ...] | None:
  if text is None:
    return None
  if not re.fullmatch(r'\d+(,\d+)*', text.replace(' ', '')):
    raise UserError(f'--{option} takes numbers such as 3 or 0,5, got {text!r}')
  numbers = tuple(int(t) for t in text.split(','))
  if exactly and len(numbers) != exactly:
    raise UserError(f'--{option} takes {exactly} numbers, got {text!r}')
  return numbers


def _names(option: str, text: str | None, valid: tuple[str, ...]) -> tuple[str, ...]:
  if text is None:
    return valid
  names = tuple(t.strip() for t in text.split(','))
  wrong = [f'--{option}={n}: {did_you_mean(n, valid)}' for n in names if n not in valid]
  if wrong:
    raise UserError(wrong)
  return names


def _files(patterns: list[str]) -> tuple[pathlib.Path, ...]:
  """The pictures that files, folders and globs stand for; a missing one is told at once."""
  found = tuple(map(pathlib.Path, find_images(patterns)))
  missing = [f'no such picture: {path}' for path in found if not path.is_file()]
  if missing:
    raise UserError(missing)
  return found


def request(argv: list[str] | None = None) -> Request:
  """Reads the command line.

  Raises:
    UserError: all that is wrong with it.
  """
  args = _parser().parse_args(argv)
  values, problems = {}, []

  def read(field, f, *arguments):
    try:
      values[field] = f(*arguments)
    except UserError as e:
      problems.extend(e.problems)

  def size():
    whole = args.image_size in (None, 'whole')
    return args.image_size if whole else _numbers('image_size', args.image_size, 2)

  read('images', _files, args.images)
  read('gallery', _files, [args.gallery] if args.gallery else [])
  read('what', _names, 'what', args.what, WHATS)
  read('fusions', _names, 'fusion', args.fusion, FUSIONS)
  read('blocks', _numbers, 'block', args.block)
  read('heads', _numbers, 'head', args.head)
  read('channels', _numbers, 'channel', args.channel)
  read('patches', lambda: tuple(_numbers('patch', p, 2) for p in args.patch))
  read('image_size', size)
  if not 0.0 <= args.discard < 1.0:
    problems.append(f'--discard must be from 0 to below 1, got {args.discard}')
  if args.count < 1:
    problems.append(f'--count must be at least 1, got {args.count}')
  out = pathlib.Path(args.out)
  if out.exists() and not out.is_dir():
    problems.append(f'--out={out} is a file: name a folder')
  if problems:
    raise UserError(problems)
  return Request(
    model=args.model,
    out=out,
    explicit=args.what is not None,
    classes=tuple(args.classes),
    discard=args.discard,
    count=args.count,
    architecture=args.architecture,
    pretrained_dir=args.pretrained_dir,
    **values,
  )


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  wanted = request(argv)
  from vit_jax.visualization.command import run  # noqa: PLC0415  (mistakes are told before JAX loads)

  return run(wanted)


if __name__ == '__main__':
  run_cli(main)
