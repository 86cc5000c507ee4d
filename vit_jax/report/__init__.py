"""What a model predicts correctly and wrongly, as a page for people and as files for programs.

`Collector` keeps an evaluation's outputs, `Predictions` is their record, `write_report` turns it
into `report.html`, `metrics.json`, CSVs and figures, as a task's `ReportLayout` has it. A layout is
composed of building blocks: `single_label`, `boxes` and `label_sets` hold those of one class per
image, of boxes and of any number of classes; `sections`, `page`, `figures` and `canvas` are what
new blocks are made of. Nothing here imports JAX or matplotlib before it is used.
"""

import importlib
from typing import Any

_LAZY = {
  'canvas': ('can_draw',),
  'collect': ('Collector', 'Timing', 'image_loader'),
  'facts': ('Facts',),
  'layout': ('Context', 'ReportLayout', 'Table', 'Title'),
  'live': ('live_images',),
  'metrics': ('compute',),
  'predictions': ('Predictions', 'load_predictions'),
  'write': ('write_report',),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  # No submodule may have the name of a function: importing it would hide the function.
  return getattr(importlib.import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
