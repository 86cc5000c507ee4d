"""The report of an evaluation: files for programs first, then the page for people."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import files
from vit_jax.errors import StorageError, counted
from vit_jax.report import canvas, history, metrics, page, sections
from vit_jax.report.collect import LoadImage
from vit_jax.report.layout import Context, ReportLayout
from vit_jax.report.predictions import FILE, Predictions


def write_report(
  out_dir: str | pathlib.Path,
  predictions: Predictions,
  layout: ReportLayout,
  metrics_rows: Sequence[Mapping[str, Any]] = (),
  load_image: LoadImage | None = None,
) -> dict[str, Any]:
  """Writes predictions.npz, metrics.json and CSVs, then figures and report.html.

  Args:
    out_dir: made where it is missing; files of an earlier report are replaced.
    predictions: what is reported.
    layout: of the task.
    metrics_rows: of the run's metrics.jsonl.
    load_image: position in the split -> uint8 [h, w, c], as the model saw it; without it no
      images are shown.

  Returns:
    What metrics.json holds.

  Raises:
    StorageError: the folder cannot be written.
    DependencyError: once predictions, metrics and tables are written, if matplotlib is missing.
  """
  out = pathlib.Path(out_dir)
  try:
    out.mkdir(parents=True, exist_ok=True)
    predictions.save(out / FILE)
    result = _numbers(predictions, layout, metrics_rows)
    files.write_json(out / 'metrics.json', result)
    context = Context(predictions, result, metrics_rows, layout.titles, out / 'figures', load_image)
    for make in layout.tables:
      if (table := make(context)) is not None:
        files.write_csv(out / table.file, table.header, table.rows)
    canvas.empty_folder(context.folder)
    _write_page(out / 'report.html', context, layout)
  except OSError as e:
    raise StorageError(f'cannot write a report to {out}: {e.strerror or e}') from e
  return result


def _numbers(
  predictions: Predictions, layout: ReportLayout, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  """What metrics.json holds: the layout's numbers, how long training took, the circumstances."""
  facts = predictions.facts
  trained = history.training(rows, facts.config.get('batch_size'))
  of_run = {'training': trained and dataclasses.asdict(trained), 'facts': facts.to_json()}
  return metrics.jsonable({**layout.metrics(predictions), **of_run})


def _write_page(path: pathlib.Path, context: Context, layout: ReportLayout) -> None:
  facts = context.predictions.facts
  made = [
    sections.learning_curves(context),
    sections.logged_metrics(context),
    *(section(context) for section in layout.sections),
    sections.time_and_memory(context),
    sections.configuration(context),
  ]
  by = f'vit_jax {facts.versions.get("vit_jax", "")}'.strip()
  footer = f'Made by {by} from {counted(len(context.predictions), "prediction")}.'
  lead = [
    *layout.summary(context),
    *(page.paragraph(f'Warning: {w}', 'note') for w in facts.warnings),
  ]
  page.write(path, sections.page_title(facts), lead, made, footer)
