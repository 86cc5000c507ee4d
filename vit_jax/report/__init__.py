"""What a model got right and wrong, as a page for people and as files for programs.

`Collector` keeps an evaluation's outputs, `Predictions` is their record, `write_report` turns it
into `report.html`, `metrics.json`, CSVs and figures. Nothing here imports JAX or matplotlib before
it is used.
"""

import importlib

_LAZY = {
  'canvas': ('can_draw',),
  'collect': ('Collector', 'picture_loader'),
  'facts': ('Facts',),
  'live': ('live_images',),
  'metrics': ('compute',),
  'predictions': ('Predictions', 'load_predictions'),
  'write': ('write_report',),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
  if name not in _MODULE_OF:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  # No submodule may have the name of a function: importing it would hide the function.
  return getattr(importlib.import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
