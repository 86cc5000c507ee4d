"""What a run says on a terminal or in a log."""

import sys
import time


class Progress:
  """One moving line on a terminal, one line a report in a log.

  Args:
    total: steps in all.
    start: steps already made by an earlier attempt.
    active: False in all processes but the first.
  """

  def __init__(self, total: int, start: int = 0, active: bool = True):
    self._total, self._start, self._active = total, start, active
    self._began = time.monotonic()
    self._bar = None
    if active and sys.stderr.isatty():
      import tqdm

      self._bar = tqdm.tqdm(total=total, initial=start, unit='step', dynamic_ncols=True)

  def step(self, step: int) -> None:
    """Moves the line on a terminal."""
    if self._bar is not None:
      self._bar.update(step - self._bar.n)

  def report(self, step: int, metrics: dict[str, float]) -> None:
    """Shows metrics with the rate and the time left."""
    if self._bar is not None:
      self._bar.set_postfix_str(format_metrics(metrics, ('loss', 'accuracy', 'img_sec')))
      return
    seconds = time.monotonic() - self._began
    left = seconds / max(1, step - self._start) * (self._total - step)
    self.say(f'step {step}/{self._total}  left {format_seconds(left)}  {format_metrics(metrics)}')

  def say(self, text: str) -> None:
    """Prints a line without breaking the moving one."""
    if not self._active:
      return
    if self._bar is not None:
      self._bar.write(text)
    else:
      print(text, flush=True)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def format_metrics(metrics: dict[str, float], names: tuple[str, ...] = ()) -> str:
  """'loss 0.1234  accuracy 0.98', of the names given or of all."""
  return '  '.join(f'{k} {metrics[k]:.4g}' for k in names or metrics if k in metrics)


def format_seconds(seconds: float) -> str:
  """Hours, minutes and seconds as '1:02:03' or '2:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
