"""The images of a request's body: raw bytes, a form, or JSON with base64."""

import base64
import binascii
import email
import json
from collections.abc import Iterator
from email.message import Message
from typing import NamedTuple

from vit_jax.errors import ImageError, shown

_FORM = "a form has its files in fields 'image' or 'images'"
_JSON = 'JSON has one image as {"image": BASE64}, several as {"images": [BASE64, ...]}'


class Given(NamedTuple):
  """What a request asks for.

  Attributes:
    images: names and encoded bytes, at least one.
    several: whether it asked for a list, be it of one.
  """

  images: list[tuple[str, bytes]]
  several: bool


def images_of(content_type: str, body: bytes) -> Given:
  """The images in a body.

  Args:
    content_type: header of the request; what is neither a form nor JSON is one image.
    body: not empty.

  Raises:
    ImageError: the body is of another form than its type says, or holds no image.
  """
  header = Message()
  header['Content-Type'] = content_type or 'application/octet-stream'
  kind = header.get_content_type()
  if kind == 'multipart/form-data':
    return _of_form(body, str(header.get_param('boundary', '')))
  if kind == 'application/json':
    return _of_json(body)
  return Given([('upload', body)], several=False)


def _of_form(body: bytes, boundary: str) -> Given:
  found: list[tuple[str, bytes]] = []
  several = False
  for head, content in _parts(body, boundary.encode('latin-1', 'replace')):
    field = head.get_param('name', '', 'content-disposition')
    file = head.get_filename()
    if file is None and field not in ('image', 'images'):
      raise ImageError(f'the form has a field {shown(field)}: {_FORM}')
    found.append((file or f'image {len(found) + 1}', content))
    several = several or field == 'images'
  if not found:
    raise ImageError(f'the form has no image: {_FORM}')
  return Given(found, several or len(found) > 1)


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[Message, bytes]]:
  """Headers and contents of a form's parts. Source: RFC 2046, section 5.1."""
  if not boundary:
    raise ImageError('the form states no boundary in its Content-Type')
  for part in (b'\r\n' + body).split(b'\r\n--' + boundary)[1:]:
    if part.startswith(b'--'):
      return
    head, blank, content = part.partition(b'\r\n\r\n')
    if not blank:
      break
    yield email.message_from_string(head.strip().decode('utf-8', 'replace')), content
  raise ImageError('the form is not whole: its last boundary is missing')


def _of_json(body: bytes) -> Given:
  try:
    value = json.loads(body)
  except (ValueError, RecursionError) as e:
    raise ImageError(f'the body is no JSON ({e}): {_JSON}') from None
  if not isinstance(value, dict) or list(value) not in (['image'], ['images']):
    raise ImageError(f'the body is not as expected: {_JSON}')
  several = 'images' in value
  texts = value['images'] if several else [value['image']]
  if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
    raise ImageError(f'the body is not as expected: {_JSON}')
  names = [f'image {i}' for i in range(1, len(texts) + 1)] if several else ['upload']
  return Given([(name, _decoded(name, text)) for name, text in zip(names, texts)], several)


def _decoded(name: str, text: str) -> bytes:
  """The bytes of base64, also of a URL: 'data:image/png;base64,...'."""
  if text.startswith('data:'):
    text = text.partition(',')[2]
  try:
    return base64.b64decode(''.join(text.split()), validate=True)
  except (binascii.Error, ValueError) as e:
    raise ImageError(f'{name} is no base64: {e}') from None
