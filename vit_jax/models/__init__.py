"""Models by name: `build(name, num_classes, **overrides)`, `names()`, `fields(name)`."""

from vit_jax.models.base import SIZES, build, check_image_size, fields, is_text, names

__all__ = ['SIZES', 'build', 'check_image_size', 'fields', 'is_text', 'names']
