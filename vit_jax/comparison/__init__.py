"""Runs compared on the same test images: `python -m vit_jax.compare RUN RUN... --out=DIR`."""
