"""Checkpoints: all that a run needs to be resumed, or its model to be used, in one atomic unit.

A checkpoint holds 'variables' (what the model is used with: their EMA where there is one),
'training' (step, optimizer state, the variables behind an EMA) and 'meta' (data position, config,
classes, preprocessing, metrics): nothing that loads one needs flags.

Beside them lies a list of the files with their checksums, by which whoever reads a checkpoint
verifies what it reads: a damaged one is named, and the one before is taken. Version 0.1 wrote no
such list; its checkpoints are read as they are.
"""

from vit_jax.checkpoint.run import Run, has_checkpoint, is_run, load_run
from vit_jax.checkpoint.saved import (
  FORMAT_VERSION,
  DamagedCheckpointError,
  Saved,
  best_step,
  read_metas,
)
from vit_jax.checkpoint.writer import Checkpointer

__all__ = [
  'FORMAT_VERSION',
  'Checkpointer',
  'DamagedCheckpointError',
  'Run',
  'Saved',
  'best_step',
  'has_checkpoint',
  'is_run',
  'load_run',
  'read_metas',
]
