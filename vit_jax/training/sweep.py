"""Runs the members of a sweep one after another and compares them.

Each has a process of its own: one that fails, or is killed for memory, ends no other.
"""

import contextlib
import json
import logging
import pathlib
import signal
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import config, files, machine, metric_writer, processes, remote
from vit_jax.console import align
from vit_jax.errors import InterruptedRunError, UserError
from vit_jax.tasks import metric_text
from vit_jax.training import signals
from vit_jax.training.display import console_for
from vit_jax.training.loop import train

log = logging.getLogger(__name__)

Members = Mapping[str, tuple[Mapping[str, Any], config.Config]]
_DONE = 'finished.json'
_ON_ONE_PAGE = 8  # members on the comparison page: the best


def run_one(
  members: Members, name: str, workdir: str, output: str = 'text', max_hours: float = 0.0
) -> None:
  """Trains one member, unless it is finished already, and records that it is.

  Args:
    members: as `config.load_sweep` gives them.
    name: of the member.
    workdir: the sweep's folder or its URL; the member's is in it.
    output: one of `display.DISPLAYS`.
    max_hours: as of `loop.train`.
  """
  options = members[name][1]
  with console_for(output), remote.workdir(remote.join(workdir, name)) as folder:
    if processes.agreed(lambda: is_finished(folder, options)):
      log.info('%s is finished: %s', name, folder)
      return
    train(options, str(folder), output, max_hours)
    if not processes.index():
      files.write_json(folder / _DONE, options.to_json())


def is_finished(folder: pathlib.Path, options: config.Config) -> bool:
  """Whether a member's folder holds a finished run of just these options."""
  return files.read_json(folder / _DONE) == json.loads(json.dumps(options.to_json()))


def run_all(members: Members, workdir: str, command: Sequence[str], max_hours: float = 0.0) -> None:
  """Trains all members that are not finished, then writes and prints the table.

  Args:
    members: as `config.load_sweep` gives them.
    workdir: the sweep's folder.
    command: what trains member k once '--sweep=k' is added.
    max_hours: of all together, since this process started; 0 for any.

  Raises:
    UserError: naming the members that failed, after all have been tried; or where a signal stopped
      the sweep.
  """
  root = pathlib.Path(workdir).expanduser()
  files.make_workdir(root)
  states = {}
  for k, (name, (_, options)) in enumerate(members.items()):
    if is_finished(root / name, options):
      log.info(f'[{k + 1}/{len(members)}] {name}: finished before')
      states[name] = 'finished'
      continue
    log.info(f'[{k + 1}/{len(members)}] {name}')
    left = max(1e-6, max_hours - machine.process_seconds() / 3600)
    limit = [f'--max_hours={left:.6f}'] if max_hours else []
    status, stopped = _call([*command, *limit, f'--sweep={k}'])
    if stopped or (max_hours and status == InterruptedRunError('', 0).status):
      raise InterruptedRunError(
        f'interrupted during {name}: run the same command to resume', stopped
      )
    states[name] = 'finished' if status == 0 else f'failed ({status})'
  rows = table(members, workdir, states)
  _write(root / 'sweep.csv', rows)
  log.info(format_table(rows))
  means = over_seeds(rows)
  if means:
    _write(root / 'sweep_means.csv', means)
    log.info('\nover seeds: mean and standard deviation\n%s', format_table(means))
  log.info(f'table: {root / "sweep.csv"}')
  typed = [w.replace(f'--workdir={workdir}', f'--workdir={remote.address(root)}') for w in command]
  best = _best(members, rows, typed)
  if best:
    log.info('best by the validation split: %s\n%s\n  %s', best[0], _purpose(rows), best[1])
  _compare(root, rows, best)
  failed = [name for name, state in states.items() if state != 'finished']
  if failed:
    raise UserError(
      f'{len(failed)} of {len(members)} members failed: {", ".join(failed)}; the '
      'same command tries them again'
    )


def _call(command: Sequence[str]) -> tuple[int, int]:
  """Runs a command and passes signals on to it: (exit status, the first signal or 0)."""
  # In a session of its own it does not see a Ctrl-C twice.
  process = subprocess.Popen(command, start_new_session=True)
  received = []

  def pass_on(number: int, _: Any) -> None:
    received.append(number)
    with contextlib.suppress(ValueError):  # Windows sends no SIGINT: its console has done so
      process.send_signal(number)

  before = {n: signal.signal(n, pass_on) for n in signals.NUMBERS}
  try:
    return process.wait(), received[0] if received else 0
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def table(members: Members, workdir: str, states: Mapping[str, str]) -> list[dict[str, Any]]:
  """A row for each member: its options, and what its metrics.jsonl says.

  Args:
    members: as `config.load_sweep` gives them.
    workdir: the sweep's folder.
    states: of each member, by name.
  """
  options = list(dict.fromkeys(o for member, _ in members.values() for o in member))
  rows = []
  for name, (_, checked) in members.items():
    folder = pathlib.Path(workdir) / name
    metrics = metric_writer.read_metrics(folder)
    best = checked.checkpoint.best
    pick = max if checked.checkpoint.best_mode == 'max' else min
    validated = [r[best] for r in metrics if r['split'] == 'val' and r.get(best) is not None]
    tested: dict[str, Any] = next((r for r in reversed(metrics) if r['split'] == 'test'), {})
    seconds = [r['seconds'] for r in metrics if r.get('seconds') is not None]
    rows.append(
      {
        'run': name,
        **{option: _value(checked, option) for option in options},
        'state': states[name],
        'step': max((r['step'] for r in metrics), default=0),
        f'val_{best}': pick(validated, default=None),
        f'test_{best}': tested.get(best),
        'test_loss': tested.get('loss'),
        'seconds': max(seconds, default=None),
      }
    )
  names = list(dict.fromkeys(key for row in rows for key in row))
  return [{key: row.get(key) for key in names} for row in rows]


def _value(options: config.Config, name: str) -> Any:
  try:
    return config.get(options, name)
  except KeyError:  # a model's field that another member sets
    return None


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Means and standard deviations of the results over members that differ in their seed alone.

  Args:
    rows: of `table`.

  Returns:
    A row for each group; empty where no seed was swept.
  """
  if not rows or 'seed' not in rows[0]:
    return []
  columns = list(rows[0])
  options = [o for o in columns[1 : columns.index('state')] if o != 'seed']
  results = columns[columns.index('step') + 1 :]
  groups: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    groups.setdefault(repr([row[o] for o in options]), []).append(row)
  means = []
  for group in groups.values():
    mean: dict[str, Any] = {o: group[0][o] for o in options} | {'seeds': len(group)}
    for name in results:
      values = [row[name] for row in group if row[name] is not None]
      mean[name] = statistics.fmean(values) if values else None
      mean[f'{name}_std'] = statistics.stdev(values) if len(values) > 1 else None
    means.append(mean)
  return means


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Rows as aligned text; what is not known is a dash."""
  return align([list(rows[0]), *_cells(rows)])


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  return [[_cell(name, value) for name, value in row.items()] for row in rows]


def _cell(name: str, value: Any) -> str:
  """A value for people; `name` is its column: 'val_accuracy', 'test_loss_std', an option."""
  if value is None:
    return '-'
  split, _, metric = name.partition('_')
  if split in ('val', 'test') and metric:
    return metric_text(metric.removesuffix('_std'), value)
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _write(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  from vit_jax.files import write_csv

  write_csv(path, list(rows[0]), (row.values() for row in rows))


def winner(members: Members, rows: Sequence[Mapping[str, Any]]) -> int | None:
  """The row of the best finished member by its validation metric, the first of equals.

  The test metric decides nothing: the best of many members by it would be better than the truth.

  Args:
    members: as `config.load_sweep` gives them.
    rows: of `table`.

  Returns:
    Its number among the rows; None where no finished member was validated.
  """
  found = []
  for i, row in enumerate(rows):
    checkpoint = members[row['run']][1].checkpoint
    value = row.get(f'val_{checkpoint.best}')
    if row['state'] == 'finished' and value is not None:
      found.append((-value if checkpoint.best_mode == 'max' else value, i))
  return min(found)[1] if found else None


def _best(
  members: Members, rows: Sequence[Mapping[str, Any]], command: Sequence[str]
) -> tuple[str, str] | None:
  """The winner, such as 'seed=1 (val_accuracy 0.93)', and the command that trains it."""
  won = winner(members, rows)
  if won is None:
    return None
  row, name = rows[won], members[rows[won]['run']][1].checkpoint.best
  shown = [n for n in (f'val_{name}', f'test_{name}') if row.get(n) is not None]
  values = [f'{n} {_cell(n, row[n])}' for n in shown]
  line = machine.shell_line([*command, f'--sweep={list(members).index(row["run"])}'])
  return f'{row["run"]} ({", ".join(values)})', line


def _purpose(rows: Sequence[Mapping[str, Any]]) -> str:
  """What the winner's command is for: in the sweep's own folder that run is finished."""
  longer = '' if 'total' in rows[0] else ', and with a larger --config.total longer'
  return f'With another --workdir this command trains it anew{longer}:'


def _compare(
  root: pathlib.Path, rows: Sequence[Mapping[str, Any]], best: tuple[str, str] | None
) -> None:
  """A page over the best members, where they were tested.

  Args:
    root: the sweep's folder.
    rows: of `table`.
    best: the winner and its command.
  """
  from vit_jax.comparison import gather, write
  from vit_jax.comparison.page import Extra
  from vit_jax.report import page
  from vit_jax.report.predictions import FILE

  result = next(key for key in rows[0] if key.startswith('test_'))
  tested = [
    row
    for row in rows
    if row[result] is not None and (root / row['run'] / 'report' / FILE).exists()
  ]
  if len(tested) < 2:
    return
  tested.sort(key=lambda row: -row[result])
  cells = _cells(rows)
  words = 'All members; those with the highest test metric are compared below. As a file:'
  lead = []
  if best:
    text = f'Best of {len(rows)} members by the validation split: {best[0]}. {_purpose(rows)}'
    lead = [page.paragraph(text.replace(' %', '\u00a0%'), 'lead'), page.command(best[1])]
  table = page.table(list(rows[0]), cells, words, sortable=True, file='../sweep.csv')
  extra = Extra(lead, [('Sweep', [table])])
  try:
    runs = gather.gather([str(root / row['run']) for row in tested[:_ON_ONE_PAGE]])
    write.write_comparison(root / 'comparison', runs, extra)
  except UserError as e:  # the table is there already
    log.warning('no comparison page: %s', e)
    return
  which = f'the {_ON_ONE_PAGE} best' if len(tested) > _ON_ONE_PAGE else 'all tested'
  log.info(f'page of {which}: {root / "comparison" / "compare.html"}')
