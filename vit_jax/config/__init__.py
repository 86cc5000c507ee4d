"""The one list of options, and the door at which every configuration is checked.

An experiment file edits `default()`, a locked `ConfigDict`; the command line overrides any leaf;
`parse` returns the frozen dataclasses of `options`, or one error that names every problem.
"""

from vit_jax.config.loading import default, load
from vit_jax.config.options import (
  Checkpoint,
  Config,
  Dataset,
  EarlyStopping,
  Ema,
  Evaluation,
  Fewshot,
  Input,
  Length,
  Log,
  Mixing,
  Optimizer,
  Plateau,
  Schedule,
  Task,
  describe,
  get,
  leaves,
  parse_multiplier,
)
from vit_jax.config.sweep import load_sweep, member_names, pick, product
from vit_jax.config.validation import parse

__all__ = [
  'Checkpoint',
  'Config',
  'Dataset',
  'EarlyStopping',
  'Ema',
  'Evaluation',
  'Fewshot',
  'Input',
  'Length',
  'Log',
  'Mixing',
  'Optimizer',
  'Plateau',
  'Schedule',
  'Task',
  'default',
  'describe',
  'get',
  'leaves',
  'load',
  'load_sweep',
  'member_names',
  'parse',
  'parse_multiplier',
  'pick',
  'product',
]
