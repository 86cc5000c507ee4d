"""Models by name: `build(name, num_classes, **overrides)`, `names()`, `fields(name)`."""

# Imported for what they register, in the order in which `names()` lists them.
from vit_jax.models import hybrid, vit  # noqa: F401
from vit_jax.models.base import build, fields, names

__all__ = ['build', 'fields', 'names']
