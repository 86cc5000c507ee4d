"""What several tests share: where real data lies, and the marker that skips without it."""

import os
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DATA = pathlib.Path(os.environ.get('VIT_JAX_SHARED_DATA', _ROOT.parent / 'shared' / 'data'))

SHARED: pathlib.Path | None = _DATA if _DATA.is_dir() else None

needs_shared = pytest.mark.skipif(
  SHARED is None, reason='real pictures and weights are not here (set VIT_JAX_SHARED_DATA)'
)
