"""Which of how many processes this one is, as flags or the environment of a cluster say."""

import argparse
import dataclasses
import json
import logging
import os
import re
import sys
from typing import Any

from vit_jax.errors import ConfigError, shown

log = logging.getLogger(__name__)

LAUNCHED = 'VIT_JAX_LAUNCHED'  # set by our own launcher
WHO = ('coordinator', 'process_id', 'process_count')  # the flags of one process alone
_ADDRESS = re.compile(r'(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})')


@dataclasses.dataclass(frozen=True)
class Place:
  """One process of several.

  Attributes:
    coordinator: 'HOST:PORT', where process 0 can be reached by all.
    index: of this process.
    count: how many there are.
    source: who says so.
    devices: numbers of this machine's devices that are its own; None for all that it sees.
    words: the command that the launcher was started by.
    lifeline: an open file that ends with the launcher; -1 without one.
    seconds: that the launcher had run when it started this process.
  """

  coordinator: str
  index: int
  count: int
  source: str
  devices: tuple[int, ...] | None = None
  words: tuple[str, ...] = ()
  lifeline: int = -1
  seconds: float = 0.0

  @property
  def launched(self) -> bool:
    """Whether our own launcher sees how each process ends."""
    return self.lifeline >= 0


def flags(parser: Any) -> None:
  """Adds what `place_of` reads to an `arguments.Parser`."""
  add = parser.option
  here = 'start so many processes on this machine; 1: alone, whatever a cluster says'
  add('--processes', int, here, 0, low=0, high=4096)
  add('--coordinator', str, 'process 0, where all can reach it', '', metavar='HOST:PORT')
  add('--process_id', int, 'the number of this process, from 0', low=0, high=1 << 20)
  add('--process_count', int, 'how many processes there are', low=1, high=1 << 20)
  after = 'seconds after which a process that is silent or stands still ends the others'
  add('--process_timeout', float, after, 60.0, low=5, high=86400)


def hide_flags(parser: argparse.ArgumentParser) -> None:
  """Leaves the flags out of a help that describes them elsewhere."""
  for action in parser._actions:
    if action.dest.startswith(('process', 'coordinator')):
      action.help = argparse.SUPPRESS


def may_be_several() -> bool:
  """Whether this process is likely to be one of several, judged before flags are read."""
  named = any(word.startswith(tuple(f'--{flag}' for flag in WHO)) for word in sys.argv)
  counts = (LAUNCHED, 'SLURM_STEP_NUM_TASKS', 'OMPI_COMM_WORLD_SIZE')
  return named or any(os.environ.get(name, '1') != '1' for name in counts)


def check(args: argparse.Namespace) -> None:
  """Raises a `ConfigError` where `place_of` would."""
  if LAUNCHED not in os.environ:
    place_of(args)


def place_of(args: argparse.Namespace) -> Place | None:
  """Where this process stands; None for one that is alone.

  Args:
    args: of a parser with `flags`.

  Raises:
    ConfigError: the flags do not fit together, or a cluster's environment is incomplete.
  """
  if launched := os.environ.pop(LAUNCHED, ''):
    found = json.loads(launched)
    return Place(**{**found, 'words': tuple(found['words'])})
  given = [name for name in WHO if getattr(args, name) not in (None, '')]
  if args.processes and given:
    raise ConfigError(
      f'--processes={args.processes} starts processes here, and --{given[0]} says that they are '
      'started elsewhere: use one of them'
    )
  if args.processes:
    return None
  try:
    cluster = _cluster()
  except ConfigError:
    if len(given) < len(WHO):
      raise
    cluster = None
  if given:
    return _of_flags(args, cluster)
  if cluster is None or cluster.count == 1:
    return None
  if not cluster.coordinator:
    raise ConfigError(
      f'{cluster.source} started {cluster.count} processes and does not say where process 0 is: '
      'add --coordinator=HOST:PORT, or --processes=1 where each is to run alone'
    )
  if problems := _problems(cluster):
    raise _unclear(cluster.source, '; '.join(problems))
  return cluster


def _problems(place: Place) -> list[str]:
  """What cannot be of a place that is complete."""
  found, problems = _ADDRESS.fullmatch(place.coordinator), []
  if place.coordinator and not (found and 0 < int(found[2]) < 1 << 16):
    problems.append(
      f'--coordinator={shown(place.coordinator)}: expected HOST:PORT, such as node0:1234'
    )
  if place.count and place.index >= place.count:
    problems.append(
      f'--process_id={place.index} must be below --process_count={place.count}: processes are '
      'numbered from 0'
    )
  return problems


def _unclear(source: str, reason: str) -> ConfigError:
  return ConfigError(
    f'{source} says that this process may be one of several, but not which: {reason}; add '
    '--coordinator, --process_id and --process_count, or --processes=1 to run alone'
  )


def _of_flags(args: argparse.Namespace, cluster: Place | None) -> Place | None:
  """The place that flags name; a cluster says what they leave out."""
  place = Place(
    args.coordinator or (cluster.coordinator if cluster else ''),
    args.process_id if args.process_id is not None else cluster.index if cluster else -1,
    args.process_count or (cluster.count if cluster else 0),
    'the command line',
    cluster.devices if cluster else None,
  )
  have = {'coordinator': place.coordinator, 'process_id': place.index >= 0}
  have['process_count'] = bool(place.count)
  problems = []
  if lacking := [f'--{name}' for name, there in have.items() if not there]:
    problems.append(
      f'{" and ".join(lacking)} missing: several processes need --coordinator=HOST:PORT, '
      '--process_id and --process_count'
    )
  problems += _problems(place)
  if problems:
    raise ConfigError(problems)
  return place if place.count > 1 else None


def _cluster() -> Place | None:
  """The place that a cluster's environment names; None where there is none."""
  for source, find in (('SLURM', _of_slurm), ('Open MPI', _of_open_mpi)):
    try:
      if found := find(os.environ):
        return found
    except (KeyError, ValueError, IndexError) as e:
      raise _unclear(source, f'its variables do not fit ({" ".join(str(e).split())[:200]})') from e
  return _of_jax()


def _of_slurm(environment: Any) -> Place | None:
  """A task of `srun`.

  The shell of `salloc` and the script of `sbatch` have most of the variables too: the first is a
  step of one task, and the second is no step.
  """
  from jax._src.clusters.slurm_cluster import SlurmCluster  # starts nothing

  if not SlurmCluster.is_env_present():
    return None
  step = environment.get('SLURM_STEP_NUM_TASKS') or environment['SLURM_NTASKS']
  if not (step.isdecimal() and int(step) > 1):
    return None
  port = environment.get('JAX_COORDINATOR_PORT')
  coordinator = SlurmCluster.get_coordinator_address(None, port)
  on_nodes = _repeated(environment.get('SLURM_STEP_TASKS_PER_NODE', '1'))
  node = int(environment.get('SLURM_NODEID', '0'))
  here = on_nodes[node] if node < len(on_nodes) else 1
  local = int(environment['SLURM_LOCALID'])
  index = int(environment['SLURM_PROCID'])
  return Place(coordinator, index, int(step), 'SLURM', _own_device(local, here))


def _repeated(text: str) -> list[int]:
  """'2(x3),1' -> [2, 2, 2, 1], as SLURM counts the tasks of each node."""
  found = []
  for number, times in re.findall(r'(\d+)(?:\(x(\d+)\))?', text):
    found += [int(number)] * int(times or 1)
  return found


def _of_open_mpi(environment: Any) -> Place | None:
  """A process of `mpirun`; from version 5 on it does not say where process 0 is."""
  from jax._src.clusters.ompi_cluster import OmpiCluster

  if 'OMPI_COMM_WORLD_SIZE' not in environment or 'OMPI_COMM_WORLD_RANK' not in environment:
    return None
  index, count = (int(environment[f'OMPI_COMM_WORLD_{name}']) for name in ('RANK', 'SIZE'))
  coordinator = ''
  if OmpiCluster.is_env_present():
    port = environment.get('JAX_COORDINATOR_PORT')
    coordinator = OmpiCluster.get_coordinator_address(None, port)
  local = int(environment.get('OMPI_COMM_WORLD_LOCAL_RANK', '0'))
  here = int(environment.get('OMPI_COMM_WORLD_LOCAL_SIZE', '1'))
  return Place(coordinator, index, count, 'Open MPI', _own_device(local, here))


def _own_device(local: int, here: int) -> tuple[int, ...] | None:
  """One GPU for each of several processes of a machine, unless the scheduler has seen to it."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES', '')
  if here < 2 or (visible and ',' not in visible):
    return None
  return (local,)


def _of_jax() -> Place | None:
  """What JAX itself finds of Kubernetes and TPU environments."""
  from jax._src.clusters import cloud_tpu_cluster, k8s_cluster

  tpu = (cloud_tpu_cluster.GceTpuCluster, cloud_tpu_cluster.GkeTpuCluster)
  clusters: list[Any] = [cluster for cluster in tpu if cluster.is_env_present()]
  # A pod of an indexed job; of any other pod nothing says that it is one of several.
  if not clusters and {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= os.environ.keys():
    try:
      import kubernetes  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
      log.warning(
        'this pod is one of an indexed job and runs alone: for one run of many pods install '
        'kubernetes, or give --coordinator, --process_id and --process_count'
      )
      return None
    if k8s_cluster.K8sCluster.is_env_present():
      clusters = [k8s_cluster.K8sCluster]
  if not clusters:
    return None
  try:
    count = int(clusters[0].get_process_count())
    if count == 1:
      return None
    port = os.environ.get('JAX_COORDINATOR_PORT')
    coordinator = clusters[0].get_coordinator_address(300, port)
    return Place(coordinator, clusters[0].get_process_id(), count, clusters[0].name)
  except (RuntimeError, ValueError, OSError) as e:
    raise _unclear(clusters[0].name, ' '.join(str(e).split())[:300]) from e
