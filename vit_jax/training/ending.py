"""What a run tells at its end: what it reached, and what to type next."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import remote
from vit_jax.checkpoint import best_step
from vit_jax.command_line import beside
from vit_jax.config import Config
from vit_jax.console import warnings_so_far
from vit_jax.files import read_json
from vit_jax.metric_writer import read_metrics
from vit_jax.training.events import Scored, SummaryEvent
from vit_jax.training.preparation import Plan
from vit_jax.training.validation import Validation


def summary_event(
  config: Config, plan: Plan, workdir: pathlib.Path, validation: Validation, seconds: float
) -> SummaryEvent:
  """The end of a run.

  Args:
    config, plan: of the run.
    workdir: its folder.
    validation: with what it found.
    seconds: of training, over all attempts.
  """
  rows = read_metrics(workdir)
  validated = [row for row in rows if row['split'] == 'val' and config.checkpoint.best in row]
  best = validation.best.step if validation.best else _best_step(config, validated)
  steps = max((row['step'] for row in rows if row['split'] == 'train'), default=0)
  return SummaryEvent(
    workdir=remote.address(workdir),
    steps=steps,
    seconds=seconds,
    best_step=best,
    best_epoch=best and best * config.batch_size / len(plan.experiment.train),
    scores=_scores(config, plan, workdir, validation, [r for r in validated if r['step'] == best]),
    report=validation.report,
    commands=_commands(config, plan, workdir),
    warnings=warnings_so_far(),
  )


def _best_step(config: Config, validated: Sequence[Mapping[str, Any]]) -> int | None:
  """The step whose checkpoint was kept as the best."""
  kept = config.checkpoint
  scores = {row['step']: row[kept.best] for row in validated if row[kept.best] is not None}
  return best_step(scores, kept.best_mode)


def _scores(
  config: Config,
  plan: Plan,
  workdir: pathlib.Path,
  validation: Validation,
  at_best: Sequence[Mapping[str, Any]],
) -> list[Scored]:
  name = config.checkpoint.best
  titles = plan.experiment.task.metric_titles()
  percent = name in titles and titles[name].percent
  found = []
  if name in validation.tested:
    written = read_json(workdir / 'report' / 'metrics.json')
    written = written if isinstance(written, dict) else {}
    interval = written.get(f'{name}_interval')
    examples = int(validation.tested['examples'])
    value = validation.tested[name]
    span = (interval[0], interval[1]) if interval else None
    found.append(Scored('test', name, value, span, examples, percent))
  found += [Scored('val', name, row[name], percent=percent) for row in at_best[-1:]]
  return found


def _commands(config: Config, plan: Plan, workdir: pathlib.Path) -> list[str]:
  """What to type next, with an image of the dataset where its images are files.

  What stands in capitals is for the user to replace.
  """
  run, held_out = remote.address(workdir), plan.experiment.held_out
  role = next((role for role in ('test', 'val') if role in held_out), 'train')
  examples = held_out.get(role, plan.experiment.train)
  image = examples.path(0) or 'IMAGE'

  def out(name: str) -> str:
    return f'--out={remote.output_beside(workdir, name)}'

  # Compared are runs with one class per image that were tested.
  comparable = 'test' in held_out and plan.experiment.task.labels_per_image == 'one'
  return [
    beside('evaluate', run, f'--split={getattr(config.dataset, role)}'),
    beside('predict', run, image),
    beside('visualize', run, image, out('visualize')),
    *([beside('compare', run, 'OTHER_RUN', out('comparison'))] if comparable else []),
    beside('export', run, out('export')),
    beside('serve', run),
  ]
