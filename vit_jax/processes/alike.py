"""What has to be the same in all processes."""

from typing import Any

from vit_jax.errors import ConfigError, shown
from vit_jax.processes.member import collected


def refuse_unlike(given: dict[str, Any]) -> None:
  """Refuses what is not the same in all processes; all have to call it, in the same order.

  Args:
    given: to this process, by the name of an option.

  Raises:
    ConfigError: in every process, naming what differs between process 0 and another.
  """
  every = collected({name: str(value) for name, value in given.items()})
  for number, other in enumerate(every):
    names = [name for name in every[0] | other if every[0].get(name) != other.get(name)]
    if names:
      first = ', '.join(f'{name}={shown(every[0].get(name, ""))}' for name in names[:3])
      differs = ', '.join(f'{name}={shown(other.get(name, ""))}' for name in names[:3])
      raise ConfigError(
        f'process {number} was started with {differs} and process 0 with {first}: all processes '
        'run the same command with the same options'
      )
