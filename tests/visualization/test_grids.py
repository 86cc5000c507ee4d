"""Figures of images, predictions and channels; what a channel adds to attention, by hand."""

import numpy as np
import pytest

from tests.models import small
from tests.support import raises
from vit_jax import visualization
from vit_jax.data import Preprocess
from vit_jax.errors import ModelError
from vit_jax.inference.loaded import Loaded, Prediction

IMAGE = np.random.default_rng(3).integers(0, 256, (16, 24, 3), np.uint8)


@pytest.fixture(scope='module')
def loaded():
  module = small.build('vit_ti16', 5)
  names = ('ant', 'bee', 'cat', 'dog', 'eel')
  preprocess = Preprocess('decode|resize(16, 24)')
  return Loaded(module, small.variables(module), {'model': {'name': 'vit_ti16'}}, names, preprocess)


@pytest.fixture(scope='module')
def captured(loaded):
  return visualization.capture_image(loaded, IMAGE)


def test_capture_image_is_capture_of_what_the_model_sees(loaded, captured):
  pixels, seen = captured
  assert pixels.tolist() == loaded.read(IMAGE).tolist() and pixels.shape == (16, 24, 3)
  np.testing.assert_allclose(seen.logits, loaded.logits(IMAGE), atol=1e-5)
  assert seen.grid == (2, 3) and seen.layers[0].query is not None
  _, inside = visualization.capture_image(loaded, IMAGE, class_index=2)
  assert np.any(inside.layers[0].gradient)
  with raises(ModelError, 'class 5', '0 to 4'):
    visualization.capture_image(loaded, IMAGE, class_index=5)


@pytest.mark.parametrize('query', [None, (1, 2)])
def test_terms_of_all_channels_are_the_attention(captured, query):
  _, seen = captured
  layer = seen.layers[1]
  terms = visualization.attention_terms(seen, layer, query)
  assert terms.shape == (1, 3, 8, 2, 3)  # b, h, k, rows, columns
  logits = np.exp(terms.sum(axis=2))
  attention = visualization.attention_map(seen, layer, query)
  # Patches share what the class token leaves of the row.
  total = attention.sum(axis=(2, 3), keepdims=True)
  np.testing.assert_allclose(logits / logits.sum(axis=(2, 3), keepdims=True), attention / total,
                             rtol=1e-4)  # fmt: skip


def test_terms_need_queries_and_keys(loaded):
  _, seen = visualization.capture_image(loaded, IMAGE, ['weights'])
  with raises(ModelError, 'queries and keys'):
    visualization.attention_terms(seen, seen.layers[0])


def test_the_figure_of_channels_has_a_row_for_each_and_the_sum(captured):
  pixels, seen = captured
  figure = visualization.qkv_figure(pixels, seen, seen.layers[0], 1, (0, 2), [3, 5])
  titles = [axes.get_title() for axes in figure.axes]
  assert titles[:5] == ['image', 'channel 3: query', 'key', 'value', 'adds to logits']
  assert titles[6] == 'channel 5: query' and titles[13:15] == ['sum: logits', 'softmax: attention']
  largest = visualization.qkv_figure(pixels, seen, seen.layers[0], 1, (0, 2), count=1)
  spread = visualization.attention_terms(seen, seen.layers[0], (0, 2))[0, 1].std(axis=(1, 2))
  assert largest.axes[1].get_title() == f'channel {spread.argmax()}: query'
  for head, patch, channels, fact in ((3, (0, 0), None, '0 to 2'), (0, (2, 0), None, 'patch 2,0'),
                                      (0, (0, 0), [8], '0 to 7')):  # fmt: skip
    with raises(ModelError, fact):
      visualization.qkv_figure(pixels, seen, seen.layers[0], head, patch, channels)


def test_boxes_lie_where_they_are_stated():
  figure = visualization.image_figure(
    [IMAGE, IMAGE], ['one', 'two'], 'title', 'caption',
    true_boxes=[(0.5, 0.5, 0.5, 0.25), None], predicted_boxes=[None, (0.25, 0.5, 0.5, 1.0)],
  )  # fmt: skip
  first, second = figure.axes
  edge, box = first.patches  # a light edge below the colour
  assert box.get_bbox().bounds == pytest.approx((24 * 0.25 - 0.5, 16 * 0.375 - 0.5, 12, 4))
  assert edge.get_bbox().bounds == box.get_bbox().bounds
  assert second.patches[1].get_bbox().bounds == pytest.approx((-0.5, -0.5, 12, 16))
  assert box.get_edgecolor() != second.patches[1].get_edgecolor()
  assert [axes.get_title() for axes in figure.axes] == ['one', 'two']


def test_bars_are_the_probabilities_and_the_true_class_is_apart():
  found = [Prediction(1, 'bee', 0.75), Prediction(0, 'ant', 0.25)]
  figure = visualization.prediction_figure([IMAGE], [found], 'title', 'caption', ['ant'])
  image, bars = figure.axes
  assert image.get_title() == 'true: ant'
  assert [bar.get_width() for bar in bars.patches] == [75, 25]
  assert bars.patches[0].get_facecolor() != bars.patches[1].get_facecolor()
  assert [text.get_text() for text in bars.get_yticklabels()] == ['bee', 'ant']
  named = visualization.prediction_figure([IMAGE], [found], '', '', ['ant'], ['photo 1'])
  assert named.axes[0].get_title() == 'photo 1'
  with raises(ModelError, 'no images'):
    visualization.prediction_figure([], [], '', '')
