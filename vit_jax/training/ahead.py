"""The training step, compiled in a thread while the weights are made or read."""

import contextlib
from collections.abc import Callable

from vit_jax import heap, processes, runtime
from vit_jax.config import Config
from vit_jax.console import phase
from vit_jax.training.memory import traced_step
from vit_jax.training.preparation import Plan


def compile_ahead(config: Config, plan: Plan, step: int = 0) -> Callable[[], None]:
  """Begins to compile the training step, or to read it from the cache, and returns.

  JAX keeps what the thread has compiled, and the first call of the step finds it. On CPU alone,
  where a compiler measures nothing; several processes compile at a time of their own.

  Args:
    config, plan: of the run.
    step: that it is at; for one that is finished nothing is compiled.

  Returns:
    What waits until the step is compiled. If that fails, the step's first call will say so.
  """
  placement = plan.placement
  on_cpu = placement.devices[0].platform == 'cpu'
  if not on_cpu or placement.axis_name or processes.count() > 1 or plan.finished(step):
    return lambda: None
  with phase('tracing the training step'):  # here: of Python, one thread runs at a time
    lowered = traced_step(config, plan).lower()

  def compiled() -> None:
    with contextlib.suppress(Exception):
      lowered.compile()

  heap.keep_ends(False)
  done = runtime.in_background(compiled)

  def wait() -> None:
    done()
    heap.keep_ends(True)
    heap.after_compilations()

  return wait
