"""Training: the loop and what it is made of.

`loop.train` is what `python -m vit_jax.main` runs; it reads top to bottom.
"""
