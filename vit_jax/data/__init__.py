"""Pictures: where they are, how they become arrays, and in which order. Never imports jax."""

from vit_jax.data.augment import AUGREG
from vit_jax.data.cache import cached
from vit_jax.data.dataset import Dataset, Examples, open_dataset
from vit_jax.data.decode import decode_image
from vit_jax.data.pipeline import EvalBatches, TrainBatches, eval_batches, train_batches
from vit_jax.data.preprocess import Preprocess
from vit_jax.data.spec import OPS, Transform, parse_transform

__all__ = [
  'AUGREG',
  'OPS',
  'Dataset',
  'EvalBatches',
  'Examples',
  'Preprocess',
  'TrainBatches',
  'Transform',
  'cached',
  'decode_image',
  'eval_batches',
  'open_dataset',
  'parse_transform',
  'train_batches',
]
