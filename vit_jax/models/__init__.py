"""Models by name: `build(name, num_classes, **overrides)`, `names()`, `fields(name)`."""

# Imported for what they register; `names()` lists them family by family.
from vit_jax.models import cait, deit, hybrid, mixer, mobilenet, resnet, t2t, vit  # noqa: F401
from vit_jax.models.base import build, fields, names

__all__ = ['build', 'fields', 'names']
