"""Runs beside each other on the same pictures: `python -m vit_jax.compare RUN RUN... --out=DIR`."""
