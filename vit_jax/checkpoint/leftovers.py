"""What the writes that are under way when one fails would print."""

import logging
import sys
from typing import Any

_asyncio = logging.getLogger('asyncio')


class Leftovers(logging.Filter):
  """Silences the writes of tensorstore whose failure nobody waits for any more.

  Orbax raises the first failure and closes the event loop that the others report to. They end
  later, even after the failure was handled, and each would print a traceback.
  """

  def __init__(self) -> None:
    super().__init__()
    self._before = sys.unraisablehook
    self._hook = self._pass_over

  def silence(self) -> None:
    """Begins."""
    self._before = sys.unraisablehook
    sys.unraisablehook = self._hook
    _asyncio.addFilter(self)

  def release(self) -> None:
    """Ends, which nobody does after a failure."""
    _asyncio.removeFilter(self)
    if sys.unraisablehook is self._hook:
      sys.unraisablehook = self._before

  def filter(self, record: logging.LogRecord) -> bool:
    return 'exception was never retrieved' not in record.getMessage()

  def _pass_over(self, unraisable: Any) -> None:
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'):
      self._before(unraisable)
