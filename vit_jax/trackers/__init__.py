"""Experiment trackers: services that get the rows of metrics.jsonl too. Off by default.

To add a tracker, write a file here, or one that $VIT_JAX_PLUGINS names, with a class under
`@TRACKERS.register('name')`; see `base`.
"""

from vit_jax.trackers.base import TRACKERS, TrackedRun, Tracker
from vit_jax.trackers.tracking import Tracking, check_installed

__all__ = ['TRACKERS', 'TrackedRun', 'Tracker', 'Tracking', 'check_installed']
