"""A store for each test, and no waiting."""

import fsspec
import pytest

from tests.remote.stores import Flaky
from vit_jax.remote import copying, lease, mirror


@pytest.fixture
def store(tmp_path, monkeypatch):
  """The class of `flaky://`, empty; the cache folder is of this test."""
  fsspec.register_implementation('flaky', Flaky, clobber=True)
  monkeypatch.setattr(Flaky, 'store', {})
  monkeypatch.setattr(Flaky, 'pseudo_dirs', [''])
  monkeypatch.setattr(Flaky, 'log', [])
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(mirror, '_POLL_SECONDS', 0.01)
  monkeypatch.setattr(mirror, '_RETRY_SECONDS', 0.01)
  monkeypatch.setattr(mirror, '_LAST_TRIES', (0.0, 0.0))
  monkeypatch.setattr(copying, '_WAIT_SECONDS', 0.0)
  monkeypatch.setattr(lease, 'BEAT_SECONDS', 0.02)
  monkeypatch.setattr(lease, 'GONE_SECONDS', 0.3)
  monkeypatch.setattr(lease, 'POLL_SECONDS', 0.02)
  return Flaky
