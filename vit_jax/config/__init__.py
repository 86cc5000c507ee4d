"""Options: their list, config files, validation and sweeps.

A config file edits `default()`, a locked `ConfigDict`; the command line overrides any leaf; `parse`
returns frozen dataclasses, or one error that names every problem.
"""

from vit_jax.config.loading import default, load, load_all, load_any, override_problems
from vit_jax.config.options import (
  AUTO,
  Checkpoint,
  Config,
  Dataset,
  EarlyStopping,
  Ema,
  Evaluation,
  Fewshot,
  Input,
  Log,
  Optimizer,
  Plateau,
  Schedule,
  Task,
  get,
  leaves,
  schema,
)
from vit_jax.config.sweep import load_sweep, member_names, pick, product, split_sweep
from vit_jax.config.validation import parse, parse_saved, usable
from vit_jax.config_files import is_foreign
from vit_jax.options import Length

__all__ = [
  'AUTO',
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
  'Optimizer',
  'Plateau',
  'Schedule',
  'Task',
  'default',
  'get',
  'is_foreign',
  'leaves',
  'load',
  'load_all',
  'load_any',
  'load_sweep',
  'member_names',
  'override_problems',
  'parse',
  'parse_saved',
  'pick',
  'product',
  'schema',
  'split_sweep',
  'usable',
]
