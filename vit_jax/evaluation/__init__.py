"""Scoring a model: on any split, and how good its frozen features are.

Frozen features are evaluated by few-shot least squares, by k nearest neighbours and by a linear
probe; `feature_cache` keeps them between commands.
"""
