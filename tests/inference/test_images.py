"""An image has the same pixels however a caller gives it; what is no image is one clear line."""

import io
import pathlib
import threading

import numpy as np
import pytest
from PIL import Image

from tests.data.test_odd_pixels import jpeg_bomb, png, ramp, tiff, webp_bomb
from tests.inference.test_loaded import make
from tests.support import raises
from vit_jax import predict
from vit_jax.errors import ImageError
from vit_jax.inference.images import as_list, content_of, name_of

PIXELS = np.random.default_rng(3).integers(0, 256, (20, 31, 3), np.uint8)


@pytest.fixture(scope='module')
def loaded():
  return make()


def save(path, image=None, **options):
  (Image.fromarray(PIXELS) if image is None else image).save(path, **options)
  return path


def rotated():
  tag = Image.Exif()
  tag[0x0112] = 6
  return tag


FILES = {
  'photo.jpg': lambda p: save(p, exif=rotated(), quality=95),
  'grey.jpg': lambda p: save(p, Image.fromarray(PIXELS).convert('L')),
  'cmyk.jpg': lambda p: save(p, Image.fromarray(PIXELS).convert('CMYK')),
  'plain.png': save,
  'rotated.png': lambda p: save(p, exif=rotated()),
  'alpha.png': lambda p: save(p, Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]]))),
  'grey alpha.png': lambda p: save(p, Image.fromarray(PIXELS[..., :2].copy(), 'LA')),
  'palette.png': lambda p: save(p, Image.fromarray(PIXELS).quantize(7), transparency=2),
  'one bit.png': lambda p: save(p, Image.fromarray(PIXELS).convert('1')),
  '12 bits.png': lambda p: p.write_bytes(png(ramp(4095), 0)),
  '12 bits, colours.png': lambda p: p.write_bytes(png(ramp(4095, 3), 2)),
  '12 bits, colours.tif': lambda p: p.write_bytes(tiff(ramp(4095, 3), '>')),
  '16 bits.png': lambda p: save(p, Image.fromarray(ramp(65535)[..., 0])),
  'float.tif': lambda p: save(p, Image.fromarray((PIXELS[..., 0] / 255).astype(np.float32))),
  'rotated.tif': lambda p: save(p, exif=rotated()),
  'white is zero.tif': lambda p: p.write_bytes(tiff(ramp(4095), t262=[0])),
  'lab.tif': lambda p: save(p, Image.new('LAB', (9, 7), (136, 208, 195))),
  'moving.gif': lambda p: save(
    p, save_all=True, append_images=[Image.fromarray(PIXELS[::-1].copy())]
  ),
  'moving.webp': lambda p: save(
    p, save_all=True, append_images=[Image.fromarray(PIXELS[::-1].copy())], lossless=True
  ),
}
GIVEN = {
  'text': str,
  'bytes': lambda p: p.read_bytes(),
  'bytearray': lambda p: bytearray(p.read_bytes()),
  'memoryview': lambda p: memoryview(p.read_bytes()),
  'BytesIO': lambda p: io.BytesIO(p.read_bytes()),
  'PIL': Image.open,
  'PIL loaded': lambda p: _loaded(Image.open(p)),
  'PIL of bytes': lambda p: Image.open(io.BytesIO(p.read_bytes())),
  'PIL copied': lambda p: _copied(Image.open(p)),
}


def _loaded(image):
  image.load()
  return image


def _copied(image):
  with image:
    return image.copy()


@pytest.mark.filterwarnings('ignore:.*mode.*parameter is deprecated')
@pytest.mark.parametrize('given', GIVEN)
@pytest.mark.parametrize('name', FILES)
def test_the_pixels_are_those_of_the_path(loaded, tmp_path, name, given):
  path = tmp_path / name
  FILES[name](path)
  expected = loaded.read(path)
  assert expected.std() > 0 or name == 'lab.tif'
  lost = {'PIL copied': ('white', '12 bits, colours'), 'PIL loaded': ('12 bits, colours',)}
  if name.startswith(lost.get(given, ())):
    pytest.skip('Pillow has lost what the file says of its values, or their low bytes')
  (image,) = as_list(GIVEN[given](path))
  np.testing.assert_array_equal(loaded.read(image), expected)
  getattr(image, 'close', lambda: None)()


def test_an_open_file_is_read_from_its_start_and_twice(loaded, tmp_path):
  path = save(tmp_path / 'a.png')
  with open(path, 'rb') as file:
    file.read(11)
    assert loaded.logits([file, file]).shape == (2, 5)
    np.testing.assert_array_equal(loaded.read(file), loaded.read(path))
    assert name_of(file) == str(path)
  with raises(ImageError, path):
    loaded.read(file)


def test_a_stream_that_cannot_seek_is_read(loaded, tmp_path):
  class Upload:
    def read(self):
      return path.read_bytes()

  path = save(tmp_path / 'a.png')
  np.testing.assert_array_equal(loaded.read(Upload()), loaded.read(path))


def test_one_object_in_many_places(loaded, tmp_path):
  with Image.open(save(tmp_path / 'a.png')) as image:
    logits = loaded.logits([image] * 17)
  np.testing.assert_allclose(logits, np.repeat(logits[:1], 17, 0), atol=1e-5)


@pytest.mark.parametrize(
  'array',
  [
    PIXELS[..., 0],
    PIXELS[..., :1],
    PIXELS[..., :2],
    np.dstack([PIXELS[..., :1]] * 3 + [PIXELS[..., 1:2]]),
    PIXELS[..., 0].astype(np.uint16) * 257,
    PIXELS[..., 0].astype(np.int64),
    PIXELS[..., 0] / 255,
    (PIXELS[..., 0] / 255).astype(np.float32)[..., None],
    PIXELS[..., 0].astype(np.float64),
    np.asfortranarray(PIXELS[..., 0]),
  ],
  ids=['hw', 'hw1', 'hw2', 'hw4', 'u16', 'i64', '0..1', 'f32', '0..255', 'fortran'],
)
def test_arrays_of_every_type_and_shape(loaded, array):
  expected = loaded.read(np.repeat(PIXELS[..., :1], 3, axis=2))
  np.testing.assert_allclose(loaded.read(array).astype(int), expected, atol=1)
  for several in ([array, array], (array,), iter([array])):
    assert loaded.logits(several).shape[1] == 5
  if array.ndim == 3:
    assert loaded.logits(np.stack([array] * 3)).shape == (3, 5)


NO_IMAGES = {
  'channels first': (np.zeros((3, 20, 31), np.uint8), ['channels first', '(3, 20, 31)']),
  'one channel first': (np.zeros((1, 20, 31), np.uint8), ['channels first']),
  'five channels': (np.zeros((20, 31, 5), np.uint8), ['(20, 31, 5)']),
  'no pixels': (np.zeros((0, 31, 3), np.uint8), ['0x31x3']),
  'negative': (np.full((20, 31, 3), -1), ['-1']),
  'normalized': (np.linspace(-1, 1, 60).reshape(20, 3), ['-1 to 1']),
  'nan': (np.full((20, 31), np.nan), ['finite']),
  'complex': (np.zeros((3, 3), complex), ['complex']),
  'texts': (np.array([['a', 'b']]), ['<U1']),
  'one row': (np.zeros(7, np.uint8), ['(7,)']),
  'None': (None, ['NoneType']),
  'a number': (7, ['int']),
  'a dictionary': ({'image': 1}, ['dict']),
  'ragged': ([[1, 2], [3]], []),
  'a text file': (io.StringIO('no image'), ['rb']),
  'no file': ('none/such.png', ['none/such.png']),
  'a zero byte': ('a\0b.png', ['b.png']),
  'a folder': (str(pathlib.Path(__file__).parent), [str(pathlib.Path(__file__).parent)]),
  'a name too long': ('x' * 5000, ['xxx']),
  'a web address': ('https://example.org/a.png', ['https://example.org/a.png']),
  'empty bytes': (b'', ['empty']),
  'empty file': (io.BytesIO(), ['empty', 'BytesIO']),
  'closed image': (None, ['cannot be decoded']),
}


@pytest.mark.parametrize('what', NO_IMAGES)
def test_what_is_no_image_is_one_clear_line(loaded, what, tmp_path):
  image, facts = NO_IMAGES[what]
  if what == 'closed image':
    image = Image.open(save(tmp_path / 'a.png'))
    image.close()
  with raises(ImageError, *facts) as error:
    loaded.predict(image)
  assert '\n' not in str(error.value)
  (found,) = loaded.predict([image], on_error='return')
  assert isinstance(found, ImageError)


def test_a_tensor_that_gives_no_array_is_refused(loaded):
  class Tensor:
    shape = (2, 3)

    def __array__(self, *args, **kwargs):
      raise RuntimeError('it requires grad')

  with raises(ImageError, 'requires grad'):
    loaded.logits(Tensor())


def test_an_opened_image_is_named_by_its_file(tmp_path):
  path = save(tmp_path / 'a.png')
  path.write_bytes(path.read_bytes()[:600])
  with Image.open(path) as image:
    assert name_of(image) == str(path)
    with raises(ImageError, path):
      content_of(image)


def test_a_folder_with_bombs_is_answered_image_by_image(tmp_path, capsys):
  (tmp_path / 'model').mkdir()
  folder = tmp_path / 'images'
  folder.mkdir()
  for name in ('a.png', 'e.png'):
    save(folder / name)
  (folder / 'b.jpg').write_bytes(jpeg_bomb())
  (folder / 'c.webp').write_bytes(webp_bomb())
  save(folder / 'd.png', Image.fromarray(np.zeros((1, 1), np.uint8)))
  (folder / 'f.tif').write_bytes(tiff(ramp(4095, dtype=np.int16) - np.int16(1024), sample_format=2))
  assert predict.main([str(make(tmp_path / 'model')), str(folder), '--json']) == 1
  out, err = capsys.readouterr()
  assert len(out.splitlines()) == 3
  *errors, count = err.splitlines()
  assert [name in line for name, line in zip(('b.jpg', 'c.webp', 'f.tif'), errors)] == [True] * 3
  assert all(line.startswith('error: ') for line in errors) and '3 of 6' in count


def test_threads_share_a_model(loaded):
  found = []
  threads = [threading.Thread(target=lambda: found.append(loaded.logits(PIXELS))) for _ in range(5)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 5
  np.testing.assert_allclose(np.concatenate(found), np.repeat(found[0], 5, 0), atol=1e-5)
