"""Images in tar files: WebDataset's samples, class folders in tar files, a tar file for each class.

Tar files need no unpacking and no order: where each image lies in them is found once and kept, and
any image is then read by itself. Compressed ones cannot be read so, and are refused.
"""

from vit_jax.data.sources.shards.finding import expand, holds_tar_files, is_pattern
from vit_jax.data.sources.shards.source import tar_source

__all__ = ['expand', 'holds_tar_files', 'is_pattern', 'tar_source']
