"""Runs in the process of these tests write no report unless a test asks for it."""

import pytest

from tests.training import runs


@pytest.fixture(scope='module', autouse=True)
def no_reports():
  with runs.reports(False):
    yield
