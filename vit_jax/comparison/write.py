"""The comparison as JSON, a table and a page."""

import itertools
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

from vit_jax import files
from vit_jax.comparison import page
from vit_jax.comparison.gather import Run
from vit_jax.comparison.significance import Pair, pairs
from vit_jax.comparison.table import facts
from vit_jax.errors import StorageError, one_line
from vit_jax.report import metrics

_CELL = 32  # characters of a cell in a terminal


def write_comparison(
  out_dir: str | pathlib.Path, runs: Sequence[Run], extra: page.Extra | None = None
) -> dict[str, Any]:
  """Writes compare.json and compare.csv, then figures and compare.html.

  Args:
    out_dir: made where it is missing.
    runs: as `gather.gather` gives them: tested on the same images, in the same order.
    extra: parts of the page's own.

  Returns:
    What compare.json holds.

  Raises:
    StorageError: the folder cannot be written.
    DependencyError: once JSON and table are written, if matplotlib is missing.
  """
  out = pathlib.Path(out_dir)
  table, tests = facts(runs), pairs(runs)
  result = metrics.jsonable(
    {
      'pictures': len(runs[0].predictions),
      'runs': [
        {'name': run.name, 'path': run.path, **{row.key: row.value(run) for row in table}}
        for run in runs
      ],
      'pairs': [_pair(test) for test in tests],
    }
  )
  plain = [row for row in table if not row.key.endswith('_interval')]
  rows = [
    [run.name, *(row.value(run) for row in plain), *run.metrics['accuracy_interval']]
    for run in runs
  ]
  header = ['run', *(row.key for row in plain), 'accuracy_low', 'accuracy_high']
  try:
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / 'compare.json', result)
    files.write_csv(out / 'compare.csv', header, rows)
    page.write(out, runs, table, tests, extra)
  except OSError as e:
    raise StorageError(f'cannot write a comparison to {out}: {e.strerror or e}') from e
  return result


def _pair(pair: Pair) -> dict[str, Any]:
  test = pair.test
  return {
    'first': pair.first.name,
    'second': pair.second.name,
    'difference': test.difference,
    'interval': test.interval,
    'only_first_right': test.only_first,
    'only_second_right': test.only_second,
    'p_value': test.p_value,
    'p_value_holm': pair.adjusted_p,
  }


def text_table(runs: Sequence[Run]) -> str:
  """The table for a terminal; what is longer than a cell continues below."""
  rows = [['', *(run.name for run in runs)]]
  rows += [[row.label, *(row.show(row.value(run)) for run in runs)] for row in facts(runs)]
  cells = [[textwrap.wrap(one_line(text), _CELL) or [''] for text in row] for row in rows]
  widths = [max(len(line) for row in cells for line in row[j]) for j in range(len(rows[0]))]
  lines = []
  for row in cells:
    for first, *rest in itertools.zip_longest(*row, fillvalue=''):
      texts = [f'{text:>{width}}' for text, width in zip(rest, widths[1:])]
      lines.append('  '.join([f'{first:{widths[0]}}', *texts]))
  return '\n'.join(lines)
