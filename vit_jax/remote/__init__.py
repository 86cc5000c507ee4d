"""Runs, weights and datasets in stores such as `gs://` and `s3://`, which fsspec reaches.

Nothing else of the program knows of stores: it works in a folder of the cache, which `local` fills
for reading and `workdir` keeps the same as the store while a run writes.
"""

from vit_jax.remote.mirror import workdir
from vit_jax.remote.reading import address, copy_of, local, output_beside
from vit_jax.remote.store import check, inside, join

__all__ = ['address', 'check', 'copy_of', 'inside', 'join', 'local', 'output_beside', 'workdir']
