"""The stable address of `train(config, workdir)`; the loop itself is `vit_jax.training.loop`."""

from vit_jax.training.loop import train

__all__ = ['train']
