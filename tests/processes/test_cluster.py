"""Which of how many processes this one is: flags and environments of clusters."""

import pytest

from tests.support import raises
from vit_jax.arguments import Parser
from vit_jax.errors import ConfigError
from vit_jax.processes import cluster

SRUN = {
  'SLURM_JOB_ID': '4097',
  'SLURM_STEP_NODELIST': 'node[007-008],other',
  'SLURM_NTASKS': '5',
  'SLURM_STEP_NUM_TASKS': '5',
  'SLURM_STEP_TASKS_PER_NODE': '2(x2),1',
  'SLURM_NODEID': '1',
  'SLURM_PROCID': '3',
  'SLURM_LOCALID': '1',
}
MPIRUN = {
  'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911',
  'OMPI_COMM_WORLD_SIZE': '3',
  'OMPI_COMM_WORLD_RANK': '2',
  'OMPI_COMM_WORLD_LOCAL_RANK': '0',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '1',
}


@pytest.fixture
def place_of(monkeypatch):
  """place_of(environment, *words) -> the place that they name."""
  others = ('CUDA_VISIBLE_DEVICES', 'KUBERNETES_SERVICE_HOST', 'JAX_COORDINATOR_PORT')
  for name in (*SRUN, *MPIRUN, *others):
    monkeypatch.delenv(name, raising=False)

  def find(environment, *words):
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    parser = Parser('main')
    cluster.flags(parser)
    return cluster.place_of(parser.parse_args(words))

  return find


@pytest.mark.parametrize(
  'environment, facts',
  [
    (SRUN | {'SLURM_LOCALID': 'x'}, ['SLURM', "'x'"]),
    (SRUN | {'SLURM_PROCID': '5'}, ['SLURM', '--process_id=5', '--process_count=5']),
    (SRUN | {'JAX_COORDINATOR_PORT': '99999'}, ['SLURM', 'node007:99999']),
    (SRUN | {'SLURM_STEP_NODELIST': ''}, ['SLURM', "':61441'"]),
    (MPIRUN | {'OMPI_COMM_WORLD_RANK': ''}, ['Open MPI']),
    (MPIRUN | {'OMPI_MCA_orte_hnp_uri': 'x'}, ['Open MPI']),
  ],
)
def test_an_environment_that_does_not_fit_is_one_error(place_of, environment, facts):
  with raises(ConfigError, *facts, '--processes=1'):
    place_of(environment)
  found = place_of(environment, '--coordinator=host:12', '--process_id=1', '--process_count=2')
  assert (found.coordinator, found.index, found.count) == ('host:12', 1, 2)
  assert place_of(environment, '--processes=1') is None


def test_nothing_says_that_there_are_several(place_of):
  assert place_of({}) is None


@pytest.mark.parametrize(
  'environment, expected',
  [
    (SRUN, ('node007:61441', 3, 5, (1,))),  # JAX's rule: 61440 and the job's number modulo 4096
    ({**SRUN, 'JAX_COORDINATOR_PORT': '77'}, ('node007:77', 3, 5, (1,))),
    ({**SRUN, 'CUDA_VISIBLE_DEVICES': '2'}, ('node007:61441', 3, 5, None)),
    ({**SRUN, 'SLURM_NODEID': '2', 'SLURM_LOCALID': '0'}, ('node007:61441', 3, 5, None)),
    (MPIRUN, ('10.96.0.1:62624', 2, 3, None)),
  ],
)
def test_schedulers_say_which_of_how_many(place_of, environment, expected):
  found = place_of(environment)
  assert (found.coordinator, found.index, found.count, found.devices) == expected


@pytest.mark.parametrize(
  'changes',
  [
    {'SLURM_STEP_NUM_TASKS': '1', 'SLURM_PROCID': '0'},  # the shell of `salloc -n 5`
    {'SLURM_STEP_NUM_TASKS': '1', 'SLURM_NTASKS': '1'},  # `srun -n 1`, or a job array
  ],
)
def test_one_task_of_an_allocation_is_alone(place_of, changes):
  assert place_of(SRUN | changes) is None


def test_the_script_of_sbatch_is_alone(place_of):
  assert place_of({k: v for k, v in SRUN.items() if 'STEP' not in k}) is None


def test_processes_1_is_alone_whatever_a_cluster_says(place_of):
  assert place_of(SRUN, '--processes=1') is None


def test_a_pod_without_a_number_is_alone(place_of):
  assert place_of({'KUBERNETES_SERVICE_HOST': '10.0.0.1'}) is None


def test_flags_name_the_place_and_a_cluster_what_they_leave_out(place_of):
  found = place_of({}, '--coordinator=host:12', '--process_id=1', '--process_count=2')
  assert (found.coordinator, found.index, found.count) == ('host:12', 1, 2)
  assert place_of({}, '--coordinator=host:12', '--process_id=0', '--process_count=1') is None
  version_5 = {k: v for k, v in MPIRUN.items() if 'orte' not in k}
  with raises(ConfigError, 'Open MPI', '--coordinator'):
    place_of(version_5)
  found = place_of(version_5, '--coordinator=host:12')
  assert (found.coordinator, found.index, found.count) == ('host:12', 2, 3)


@pytest.mark.parametrize(
  'words, facts',
  [
    (['--coordinator=host:12'], ['--process_id', '--process_count']),
    (['--process_id=0', '--process_count=2'], ['--coordinator']),
    (['--coordinator=host', '--process_id=0', '--process_count=2'], ['HOST:PORT']),
    (['--coordinator=a:b:1', '--process_id=0', '--process_count=2'], ['HOST:PORT']),
    (['--coordinator=http://a:1', '--process_id=0', '--process_count=2'], ['HOST:PORT']),
    (['--coordinator=host:0', '--process_id=0', '--process_count=2'], ['HOST:PORT']),
    (['--coordinator=host:12', '--process_id=2', '--process_count=2'], ['--process_id=2', 'below']),
    (['--processes=2', '--process_id=1'], ['--processes=2', '--process_id']),
    (['--process_id=-1'], ['--process_id']),
    (['--process_timeout=1'], ['--process_timeout', '5']),
  ],
)
def test_what_does_not_fit_together_is_one_error(place_of, words, facts):
  with raises(ConfigError, *facts):
    place_of({}, *words)


@pytest.mark.parametrize(
  'environment, words, likely',
  [
    ({}, [], False),
    ({}, ['--processes=2'], False),  # the launcher, which computes nothing
    ({'VIT_JAX_LAUNCHED': '{}'}, [], True),
    (SRUN, [], True),
    (SRUN | {'SLURM_STEP_NUM_TASKS': '1'}, [], False),
    (MPIRUN, [], True),
    ({}, ['--coordinator=host:12', '--process_id=1', '--process_count=2'], True),
  ],
)
def test_whether_there_are_others_is_guessed_before_flags_are_read(
  monkeypatch, environment, words, likely
):
  for name in (*SRUN, *MPIRUN, 'VIT_JAX_LAUNCHED'):
    monkeypatch.delenv(name, raising=False)
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  monkeypatch.setattr('sys.argv', ['main.py', *words])
  assert cluster.may_be_several() is likely
