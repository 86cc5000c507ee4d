"""Linear probes: how far frozen features go. `python -m vit_jax.probe MODEL --dataset=PATH`."""

from vit_jax.probe.cache import FeatureCache, Features
from vit_jax.probe.head import PENALTIES, Head, fit_head, score, with_head

__all__ = ['PENALTIES', 'FeatureCache', 'Features', 'Head', 'fit_head', 'score', 'with_head']
