"""What an option may be: types, ranges, choices, lengths; options of registered components."""

import dataclasses

import pytest

from tests.support import raises
from vit_jax import options
from vit_jax.errors import ConfigError
from vit_jax.options import Length, Rule, checked, component, component_options, option
from vit_jax.registry import Registry


@pytest.mark.parametrize(
  'value, hint, wanted',
  [
    (3, int, 3),
    (3, float, 3.0),
    (True, bool, True),
    ('3', str, '3'),
    (None, int | None, None),
    (3, int | None, 3),
    (3, float | None, 3.0),
    ([1, 2], tuple[int, ...], (1, 2)),
    ((), tuple[int, ...], ()),
    ([1, 2.5], tuple[float, ...], (1.0, 2.5)),
    ([], tuple[str, ...], ()),
    (4, tuple[int, int], (4, 4)),
    ([4, 5], tuple[int, int], (4, 5)),
    ([1, 2], tuple[int, ...] | None, (1, 2)),
    (None, tuple[int, ...] | None, None),
    ({'a': 1}, dict, {'a': 1}),
  ],
)
def test_values_are_brought_to_the_type(value, hint, wanted):
  found = checked('x', value, hint)
  assert found == wanted and type(found) is type(wanted)
  if isinstance(wanted, tuple):
    assert [type(item) for item in found] == [type(item) for item in wanted]


@pytest.mark.parametrize(
  'value, hint, words',
  [
    ('3', int, 'an integer'),
    (3.0, int, 'an integer'),
    (True, int, 'an integer'),
    (True, float, 'a number'),
    ('x', float, 'a number'),
    (1, bool, 'true or false'),
    (1, str, 'text'),
    (None, str, 'text'),
    (None, int, 'an integer'),
    ('x', int | None, 'an integer or None'),
    ('12', tuple[str, ...], 'a tuple of words'),
    ([1, 2.5], tuple[int, ...], 'a tuple of integers'),
    ([1, True], tuple[int, ...], 'a tuple of integers'),
    (3, tuple[int, ...], 'a tuple of integers'),
    ([1, 2, 3], tuple[int, int], 'a tuple of 2 integers'),
    (True, tuple[int, int], 'a tuple of 2 integers'),
    ('x', tuple[float, ...] | None, 'a tuple of numbers or None'),
    ([1], dict, ''),
  ],
)
def test_values_of_another_type_are_refused(value, hint, words):
  with raises(ConfigError, 'config.x ', words, repr(value)):
    checked('config.x', value, hint)


BOUNDS = {'low': 1, 'high': 5}, {'above': 1, 'below': 5}


@pytest.mark.parametrize('value, closed, opened', [(1, 1, 0), (1.5, 1, 1), (5, 1, 0), (5.1, 0, 0),
                                                   (0.9, 0, 0)])  # fmt: skip
def test_ranges_include_low_and_high_and_exclude_above_and_below(value, closed, opened):
  for bounds, allowed in zip(BOUNDS, (closed, opened)):
    rule = Rule('', **bounds)
    assert rule.admits(value) == bool(allowed)
    if allowed:
      assert checked('x', value, float, rule) == value
    else:
      with raises(ConfigError, 'x ', rule.range, value):
        checked('x', value, float, rule)


def test_a_range_is_described():
  assert Rule('', low=0, below=1).range == 'at least 0 and below 1'
  assert Rule('', above=0.25, high=1e6).range == 'above 0.25 and at most 1000000'
  assert Rule('', high=2**32 - 1).range == 'at most 4294967295'
  assert Rule('').range == ''


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_numbers_must_be_finite_whatever_the_range(value):
  for rule in (Rule(), Rule('', low=0), Rule('', below=1)):
    with raises(ConfigError, 'x ', value):
      checked('x', value, float, rule)
  with raises(ConfigError, 'x '):
    checked('x', [0.5, value], tuple[float, ...])


def test_integers_of_any_size_are_checked():
  with raises(ConfigError, 'x ', 'a number'):
    checked('x', 10**400, float)
  with raises(ConfigError, 'x ', 'at most 7'):
    checked('x', 10**400, int, Rule('', high=7))
  assert checked('x', 10**400, int) == 10**400


def test_the_range_is_of_each_number_of_a_tuple():
  rule = Rule('', low=0, high=1)
  assert checked('x', [0, 1], tuple[float, ...], rule) == (0.0, 1.0)
  with raises(ConfigError, 'x ', rule.range, '(0.0, 1.5)'):
    checked('x', [0, 1.5], tuple[float, ...], rule)
  assert checked('x', None, int | None, rule) is None
  assert checked('x', True, bool, Rule('', low=5)) is True  # no number


def test_the_number_of_items_is_checked():
  rule = Rule('', lengths=(1, 3))
  assert checked('x', [5], tuple[int, ...], rule) == (5,)
  with raises(ConfigError, 'x ', '1 or 3', '(5, 6)'):
    checked('x', [5, 6], tuple[int, ...], rule)
  assert checked('x', None, tuple[int, ...] | None, rule) is None


@pytest.mark.parametrize('choices', [('cat', 'dog'), lambda: ['cat', 'dog']])
def test_choices_are_checked_with_the_nearest_named(choices):
  rule = Rule('', choices=choices)
  assert rule.valid == ('cat', 'dog')
  assert checked('x', 'cat', str, rule) == 'cat'
  assert checked('x', ['dog', 'cat'], tuple[str, ...], rule) == ('dog', 'cat')
  assert checked('x', None, str | None, rule) is None
  with raises(ConfigError, "x='dogg'", "'dog'"):
    checked('x', 'dogg', str, rule)
  with raises(ConfigError, 'cat, dog'):
    checked('x', ['cat', 'horse'], tuple[str, ...], rule)


def test_text_is_parsed_and_every_problem_has_the_name():
  def parse(text):
    if text != 'good':
      raise ConfigError([f'{text} is bad', 'and worse'])

  rule = Rule('', parse=parse)
  assert checked('x', 'good', str, rule) == 'good'
  with raises(ConfigError, 'x: odd is bad', 'x: and worse') as caught:
    checked('x', ['good', 'odd'], tuple[str, ...], rule)
  assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
  'text, steps',
  [
    ('500 steps', 500),
    ('1 step', 1),
    (7, 7),
    ('7', 7),
    ('2 epochs', 20),
    ('0.5epoch', 5),
    (' .5 Epochs ', 5),
    ('1e3 examples', 100),
    ('1e+3 examples', 100),
    ('15 examples', 1.5),
  ],
)
def test_lengths_become_steps(text, steps):
  assert Length.parse(text).steps(batch_size=10, num_examples=100) == steps


@pytest.mark.parametrize('text', ['', 'epochs', '5 weeks', '-1 steps', '1e-3 epochs', '1e999 steps',
                                  'nan steps', 'inf', '5 5', '1_000 steps'])  # fmt: skip
def test_lengths_of_another_form_are_refused(text):
  with raises(ConfigError, repr(text), "'5 epochs'"):
    Length.parse(text)


def test_some_lengths_must_be_longer_than_nothing():
  assert Length.parse('0 steps') == Length(0.0, 'steps')
  assert Length.parse_positive('1 step') == Length(1.0, 'steps')
  for text in ('0 steps', '0.0 epochs'):
    with raises(ConfigError, repr(text)):
      Length.parse_positive(text)


_SHAPES = Registry('shape')
_FRAMES = Registry('frame')


@_SHAPES.register('circle')
@dataclasses.dataclass(frozen=True)
class _Circle:
  radius: float = option(1.0, 'of the circle', above=0)
  colour: str = option('red', 'of all shapes')


@_SHAPES.register('square')
@dataclasses.dataclass(frozen=True)
class _Square:
  side: int = option(2, 'of the square', low=1)
  colour: str = option('red', 'of all shapes')
  hidden: int = 3


@_FRAMES.register('frame')
@dataclasses.dataclass(frozen=True)
class _Frame:
  shape: object = component(_SHAPES, 'circle', 'what it holds')
  width: int = option(5, 'of the frame')
  area: int = dataclasses.field(default=0, init=False)


def test_options_of_all_components_or_of_one():
  found = component_options(_SHAPES)
  assert {name: (hint, default) for name, (hint, default, _) in found.items()} == {
    'radius': (float, 1.0),
    'colour': (str, 'red'),
    'side': (int, 2),
  }
  assert list(component_options(_SHAPES, 'square')) == ['side', 'colour']


def test_a_component_within_a_component_is_an_option_beside_its_own():
  found = component_options(_FRAMES)
  assert list(found) == ['shape', 'radius', 'colour', 'side', 'width']
  hint, default, field = found['shape']
  assert (hint, default) == (str, 'circle')
  assert options.rule_of(field).valid == ('circle', 'square')


def test_one_name_stated_in_two_ways_is_refused():
  @dataclasses.dataclass(frozen=True)
  class Other:
    colour: str = option('blue', 'another default')

  @dataclasses.dataclass(frozen=True)
  class Typed:
    colour: int = option(0, 'another type')

  for other in (Other, Typed):
    shapes = Registry('shape')
    shapes.add('circle', _Circle)
    shapes.add('other', other)
    with raises(ConfigError, 'shape', other.__name__, "'colour'"):
      component_options(shapes)


def test_a_component_that_is_no_dataclass_is_refused():
  class Undecorated:
    colour: str = option('blue', 'of the shape')

  shapes = Registry('shape')
  shapes.add('circle', Undecorated)
  with raises(ConfigError, 'shape', 'Undecorated', 'dataclass'):
    component_options(shapes)


def test_components_are_built_from_options_by_name():
  found = options.build_component(_SHAPES, 'square', {'side': 7, 'radius': 3.0, 'other': 1})
  assert found == _Square(side=7)
  framed = options.build_component(_FRAMES, 'frame', {'shape': 'square', 'side': 3, 'area': 9})
  assert framed == _Frame(shape=_Square(side=3)) and framed.area == 0
  assert options.build_component(_FRAMES, 'frame', {}).shape == _Circle()
  given = options.build_component(_FRAMES, 'frame', {'width': 1}, shape=_Circle(2.0))
  assert given == _Frame(shape=_Circle(2.0), width=1)
  with raises(ConfigError, "'squar'", "'square'"):
    options.build_component(_SHAPES, 'squar', {})


def test_fields_that_are_no_options_allow_everything():
  (*_, hidden) = dataclasses.fields(_Square)
  assert options.rule_of(hidden) == Rule()
