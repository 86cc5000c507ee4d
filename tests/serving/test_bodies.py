"""Images in requests: raw, forms as browsers write them, JSON; all else is refused."""

import base64
import json

import pytest

from tests.support import raises
from vit_jax.errors import ImageError
from vit_jax.serving.bodies import images_of

A, B = b'\x89PNG\r\n\r\n--x\r\n\0', b'-\r\n-bound'  # bytes that look like parts of a form


def _part(disposition, content):
  head = f'--bound\r\nContent-Disposition: form-data; {disposition}\r\n'.encode()
  return head + b'Content-Type: image/png\r\n\r\n' + content + b'\r\n'


def _form(*parts, kind='multipart/form-data; boundary=bound'):
  return images_of(kind, b''.join(parts) + b'--bound--\r\n')


@pytest.mark.parametrize('kind', ['', 'image/png', 'application/x-www-form-urlencoded', '!'])
def test_the_body_itself(kind):
  assert images_of(kind, A) == ([('upload', A)], False)


def test_a_form():
  one = _part('name="image"; filename="a \u00e9.png"', A)
  assert _form(one) == ([('a \u00e9.png', A)], False)
  assert _form(one, _part('name=x; filename=b.png', B)).images == [
    ('a \u00e9.png', A),
    ('b.png', B),
  ]
  assert _form(_part('name="images"', B), kind='Multipart/Form-Data; boundary="bound"') == (
    [('image 1', B)],
    True,
  )


def test_json():
  text = base64.b64encode(A).decode()
  assert images_of('application/json', json.dumps({'image': text}).encode()).images[0][1] == A
  body = json.dumps({'images': [f'data:image/png;base64,{text}', f'{text[:5]}\n{text[5:]}']})
  assert images_of('application/json; charset=utf-8', body.encode()) == (
    [('image 1', A), ('image 2', A)],
    True,
  )


@pytest.mark.parametrize(
  ('kind', 'body', 'fact'),
  [
    ('application/json', b'{"image": 3}', 'BASE64'),
    ('application/json', b'{"images": []}', 'BASE64'),
    ('application/json', b'{"image": "AA==", "top_k": 3}', 'BASE64'),
    ('application/json', b'[' * 100_000, 'no JSON'),
    ('application/json', b'\xff', 'no JSON'),
    ('application/json', b'{"image": "A\\u00e9"}', 'base64'),
    ('application/json', b'{"images": ["AA==", "A"]}', 'image 2'),
    ('multipart/form-data', A, 'boundary'),
    ('multipart/form-data; boundary=bound', A, 'boundary'),
    ('multipart/form-data; boundary=bound', b'--bound\r\n\r\n--bound--', 'not whole'),
    ('multipart/form-data; boundary=bound', b'--bound--\r\n', 'no image'),
    ('multipart/form-data; boundary=bound', _part('name="image"', A), 'not whole'),
    ('multipart/form-data; boundary=bound', _part('name="k"', A) + b'--bound--', "'k'"),
  ],
)
def test_other_bodies_are_refused(kind, body, fact):
  with raises(ImageError, fact):
    images_of(kind, body)
