"""The images of one tar file: where their bytes lie, and the labels that lie beside them."""

import dataclasses
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vit_jax.data.image_files import Scan, ending_of, is_image, is_visible, kind_of
from vit_jax.data.sources.shards.headers import FILE, LINKS, SPECIAL, DamageError, Member, walk
from vit_jax.errors import DatasetError, one_line, some

# Endings of a label's file, and keys of a label in a .json file, the first that is there.
LABEL_ENDINGS = ('.cls', '.label', '.class')
LABEL_KEYS = ('label', 'cls', 'class')
FURTHER = 'further images of a sample'
_LONGEST_LABEL = 200  # characters
_LONGEST_FILE = 1 << 24  # bytes that are read of a file with a label


@dataclasses.dataclass
class Members:
  """What one tar file holds; the lists belong together.

  Attributes:
    names: of the images, in the order of the file.
    starts, sizes: of an image in bytes.
    labels: text of the label beside an image; None where there is none.
    left_out: what is passed over.
    damage: why the rest could not be read; '' where all could.
  """

  names: list[str] = dataclasses.field(default_factory=list)
  starts: list[int] = dataclasses.field(default_factory=list)
  sizes: list[int] = dataclasses.field(default_factory=list)
  labels: list[str | None] = dataclasses.field(default_factory=list)
  left_out: Scan = dataclasses.field(default_factory=Scan)
  damage: str = ''


@dataclasses.dataclass(frozen=True)
class Keys:
  """Which members of a sample are its image and its label.

  Attributes:
    image: ending of the image without its dot, such as 'jpg' or 'left.png'; None for any.
    label: that of the label, or 'json/KEY' for a value in a .json file; None for `LABEL_ENDINGS`,
      then `LABEL_KEYS` of a .json file.
  """

  image: str | None = None
  label: str | None = None

  def is_image(self, name: str) -> bool:
    """Whether a member, by its name, is an image of these."""
    if self.image is None:
      return is_image(ending_of(name))
    return name.lower().endswith(f'.{self.image.lower()}')

  def label_endings(self) -> tuple[str, ...]:
    """Endings of files with labels, with their dots, the first before the next."""
    if self.label is None:
      return (*LABEL_ENDINGS, '.json')
    return (f'.{self.label.partition("/")[0].lower()}',)

  def read(self, ending: str, content: bytes) -> str | None:
    """The label in a file's content; None where a .json file has none, or null.

    Raises:
      ValueError: saying what it is instead.
    """
    part = self.label.partition('/')[2] if self.label else ''
    if not part and (ending != '.json' or self.label):
      return _checked(content.decode('utf-8-sig').strip())
    try:
      values = json.loads(content.decode('utf-8-sig'))
    except (ValueError, RecursionError):
      raise ValueError('is no JSON') from None
    if not isinstance(values, dict):
      values = {}
    if part and part not in values:
      raise ValueError(f'has no value {part!r}')
    found = (values.get(key) for key in ((part,) if part else LABEL_KEYS))
    label = next((value for value in found if value is not None), None)
    return None if label is None else _checked(_text(label))


def _text(value: Any) -> str:
  if isinstance(value, float) and value.is_integer():  # tables write numbers so beside gaps
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, str | int):
    raise ValueError(f'has the label {value!r:.50}; expected one number or name')
  return str(value).strip()


def _checked(text: str) -> str:
  if not text:
    raise ValueError('is empty')
  if len(text) > _LONGEST_LABEL or one_line(text) != text:
    raise ValueError(f'holds {text[:20]!r}...; expected one number or name')
  text.encode()  # JSON can spell what is no character
  return text


def read_members(path: str, name: str, keys: Keys) -> Members:
  """Finds the images of a tar file; nothing of it is read but headers and what may be a label.

  An image KEY.jpg has the label of KEY.cls; so has KEY.left.jpg, where there is no KEY.left.cls.

  Args:
    path: of the tar file.
    name: as paths within it begin in messages.
    keys: which members count.

  Raises:
    DatasetError: no tar file; labels that cannot be read; several images with one label; two
      members of one name.
    OSError: it cannot be opened or read.
  """
  found = Members()
  images: dict[str, tuple[int, int]] = {}
  endings = keys.label_endings()
  labels: dict[str, dict[str, bytes]] = {ending: {} for ending in endings}
  problems: list[str] = []
  with open(path, 'rb') as file:

    def take(member: Member) -> None:
      where = f'{name}/{member.name}'
      if not member.kind or not _is_visible(member.name):
        return
      if member.kind != FILE:
        wanted = keys.is_image(member.name) or member.name.lower().endswith(endings)
        found.left_out.leave_out(member.kind if wanted else SPECIAL, where, name)
      elif member.name.lower().endswith(endings):
        ending = next(e for e in endings if member.name.lower().endswith(e))
        file.seek(member.start)
        content = file.read(min(member.size, _LONGEST_FILE))
        if labels[ending].setdefault(member.name[: -len(ending)], content) != content:
          problems.append(f'{one_line(where)} is there twice')
      elif not keys.is_image(member.name):
        ending = ending_of(member.name)
        kind = FURTHER if is_image(ending) else kind_of(ending)
        found.left_out.leave_out(kind, where, name)
      elif member.name in images:
        problems.append(f'{one_line(where)} is there twice')
      else:
        images[member.name] = member.start, member.size

    links: list[Member] = []
    files: dict[str, Member] = {}
    try:
      for member in walk(file, path):
        if member.kind == LINKS:
          links.append(member)
        else:
          files[member.name] = member
          take(member)
    except DamageError as e:
      found.damage = str(e)
    for member in _followed(links, files) if links else ():
      take(member)
  texts, excluded = _labels_of(images, labels, keys, name, problems)
  if problems:
    raise DatasetError(problems)
  for image, (start, size) in images.items():
    if image in excluded:
      found.left_out.leave_out(FURTHER, f'{name}/{image}', name)
    else:
      found.names.append(image)
      found.starts.append(start)
      found.sizes.append(size)
      found.labels.append(texts.get(image))
  return found


def _labels_of(
  images: Iterable[str],
  labels: Mapping[str, Mapping[str, bytes]],
  keys: Keys,
  shard: str,
  problems: list[str],
) -> tuple[dict[str, str | None], set[str]]:
  """The label of each image that has one, and images that lie beside the one that a sample is of.

  Args:
    images: names.
    labels: contents by ending and by what stands before it.
    keys: how they are read.
    shard: as paths begin in messages.
    problems: receives what is wrong.
  """
  texts: dict[str, str | None] = {}
  samples: dict[str, list[str]] = {}
  for image in images:
    for key in _keys(image, keys):
      beside = {ending: contents[key] for ending, contents in labels.items() if key in contents}
      if beside:
        samples.setdefault(key, []).append(image)
        try:
          read = (keys.read(ending, content) for ending, content in beside.items())
          texts[image] = next((text for text in read if text is not None), None)
        except ValueError as e:
          reason = 'is not text in UTF-8' if isinstance(e, UnicodeError) else str(e)
          problems.append(f'the label beside {one_line(f"{shard}/{image}")} {reason}')
        break
  excluded = set()
  for key, names in samples.items():
    own = [name for name in names if name[: -len(ending_of(name))] == key]
    if len(names) > 1 and len(own) == 1:
      excluded |= set(names) - set(own)
    elif len(names) > 1 and any(texts.get(name) is not None for name in names):
      problems.append(
        f'{shard}: the sample {one_line(key)} has {len(names)} images ({some(sorted(names), 3)}); '
        'expected one, such as KEY.jpg, or the image_key of open_dataset'
      )
  return texts, excluded


def _keys(name: str, keys: Keys) -> Iterator[str]:
  """What may stand before the ending of an image's label: its name to the last or first dot."""
  if keys.image is not None:
    yield name[: -len(keys.image) - 1]
    return
  yield name[: -len(ending_of(name))]
  folder, slash, base = name.rpartition('/')
  yield f'{folder}{slash}{base.partition(".")[0]}'


def _followed(links: Sequence[Member], files: Mapping[str, Member]) -> Iterator[Member]:
  """What links lead to in the same tar file, by the links' names; the others as they are."""
  targets = {posixpath.normpath(name): file for name, file in files.items() if file.kind == FILE}
  for link in links:
    target = targets.get(posixpath.normpath(link.target))
    yield link if target is None else target._replace(name=link.name)


def _is_visible(name: str) -> bool:
  """Whether neither the member nor a folder of its path is hidden, apart from './' and '../'."""
  if '/' not in name:
    return bool(name) and is_visible(name)
  return all(is_visible(part) for part in name.split('/') if part not in ('', '.', '..'))
