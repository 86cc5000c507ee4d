"""Fixtures of tests of weights."""

import pytest

from tests.weights import loopback


@pytest.fixture
def server():
  with loopback.running_server() as running:
    yield running
