"""The tables of docs/scaling.md are those that the formulas give."""

import math

import pytest

from benchmarks import scaling

PAGE = scaling.DOCUMENT.read_text('utf-8')


def test_rows_of_a_model_are_those_of_the_formulas():
  for machine in scaling.MACHINES:
    _, _, rest = PAGE.partition(f'\n{machine.name}:\n')
    for devices in scaling.DEVICES:
      row = scaling.row('vit_b16', machine, devices)
      assert row in rest.partition(':\n')[0].splitlines(), row


@pytest.mark.slow
def test_all_tables_are_those_of_the_formulas():
  inside = PAGE.split(scaling.BEGIN)[1].split(scaling.END)[0]
  assert inside.strip() == scaling.tables().strip()


def test_seconds_by_hand():
  """1 GB in 4 parts within a node of 8; over 4 nodes; in 4 groups of a device of each node."""
  machine = scaling.Machine('made up', 1e12, 1e9, node=8, inner=1e9, outer=2e9)
  assert scaling.seconds(1e9, 4, machine) == pytest.approx(0.75)
  assert scaling.seconds(1e9, 32, machine) == pytest.approx(max(7 / 8, 3 / 4 / 2))
  assert scaling.seconds(8e9, 4, machine, stride=8) == pytest.approx(8 * 8 * (3 / 4) / 2)
  alone = scaling.Machine('one node', 1e12, 1e9, node=64, inner=1e9, outer=math.inf)
  assert scaling.seconds(1e9, 64, alone) == pytest.approx(63 / 64)


def test_counts_of_a_model_are_those_of_all_its_blocks():
  """ViT-B/16 on 197 tokens; three times the forward pass, but for the images' gradient."""
  m, n, d = scaling.model('vit_b16'), 197, 768
  assert m.params == 86_567_656
  forward = 12 * (2 * n * 12 * d * d + 4 * n * n * d) + 2 * 196 * d * d
  assert m.flops == pytest.approx(3 * forward, rel=0.01)
