"""What is free of this machine's memory."""

import pytest

from vit_jax import machine


def _group(folder, limit, used, files):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'limit').write_text(f'{limit}\n')
  (folder / 'used').write_text(f'{used}\n')
  (folder / 'memory.stat').write_text(f'cache 5\nfiles {files}\n')


@pytest.mark.parametrize('controllers', ['', 'cpu,memory'])
def test_limits_of_all_groups_around_a_process_hold(tmp_path, monkeypatch, controllers):
  """A scheduler limits a job's group, or one around it: the least that is left counts."""
  membership, root = tmp_path / 'cgroup', tmp_path / 'groups'
  membership.write_text(f'7:cpu:/other\n3:{controllers}:/slurm/job_17/step\n')
  monkeypatch.setattr(machine, '_MEMBERSHIP', str(membership))
  name = controllers.rpartition(',')[2]
  monkeypatch.setattr(machine, '_CGROUPS', [(name, str(root), 'limit', 'used', 'files')])
  _group(root, 'max', 9000, 0)
  _group(root / 'slurm/job_17', 1000, 700, 100)
  _group(root / 'slurm/job_17/step', 2000, 700, 100)
  _group(root / 'other', 10, 9, 0)
  assert machine.free_memory_bytes() == 400
  _group(root / 'slurm/job_17/step', 900, 700, 100)
  assert machine.free_memory_bytes() == 300
  _group(root, 2000, 1900, 50)
  assert machine.free_memory_bytes() == 150
  membership.unlink()  # another system
  assert machine.free_memory_bytes() == 150
