"""Scores a model on any split: `python -m vit_jax.evaluate MODEL`."""

import json

from vit_jax import processes
from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import align, show
from vit_jax.errors import counted, one_line
from vit_jax.files import check_new_folder
from vit_jax.inference.arguments import (
  ON_ERROR,
  model_option,
  opening_options,
  weights_arguments,
  weights_options,
)


def _parser() -> Parser:
  parser = Parser(
    'evaluate',
    description='Scores a model: every example of a split once, whatever the batch size.',
    epilog='example: python -m vit_jax.evaluate runs/dogs --split=test',
  )
  add = parser.option
  model_option(parser)
  named = "a folder, a TFDS name, 'digits' or 'shapes'; default: the run's own"
  add('--dataset', str, named, path=True, remote=True)
  add('--data_dir', str, 'where prepared TFDS datasets lie', '', path=True)
  add(
    '--split',
    str,
    "which examples, such as 'test' or 'train[:10%]'; default: test, or all of a --dataset that "
    'has no splits',
  )
  add('--batch_size', int, 'examples a step over all devices', 64, low=1, high=1 << 20)
  add('--parallel', str, 'how devices share a batch', 'data', choices=('data', 'pmap', 'fsdp'))
  add('--on_error', str, 'policy for images that cannot be decoded', 'raise', choices=ON_ERROR)
  opening_options(parser)
  add(
    '--report',
    str,
    'write report.html, figures and tables there',
    '',
    metavar='DIR',
    path=True,
    parse=check_new_folder,
  )
  parser.add_argument('--json', action='store_true', help='print one JSON object')
  weights_arguments(parser)
  processes.flags(parser)
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, found = _parser().parse_with(argv, opening=weights_options, place=processes.check)
  status = processes.start('evaluate', args, argv)
  if status is not None:
    return status
  opening = {'model': args.architecture, **found['opening']}
  from vit_jax.evaluation.standalone import evaluate  # --help must not wait for JAX
  from vit_jax.report.text import number
  from vit_jax.tasks import metric_text

  scored = evaluate(
    args.model,
    dataset=args.dataset,
    data_dir=args.data_dir,
    split=args.split,
    batch_size=args.batch_size,
    placement=args.parallel,
    on_error=args.on_error,
    pretrained_dir=args.pretrained_dir,
    report_dir=args.report,
    opening=opening,
  )
  if args.json:
    what = {'model': args.model, 'dataset': scored.dataset, 'split': scored.split}
    show(json.dumps({**what, **scored.metrics}))
  else:
    where = one_line(f'{scored.dataset} {scored.split}')
    show(f'{args.model} on {where}: {counted(int(scored.metrics["examples"]), "example")}')
    others = ('examples', 'skipped', 'img_sec')
    rows = [[k, metric_text(k, v)] for k, v in scored.metrics.items() if k not in others]
    compiled = ' (with compilation)' if scored.with_compilation else ''
    rows.append(['evaluation images/s', f'{number(scored.metrics["img_sec"])}{compiled}'])
    if scored.metrics['skipped']:
      skipped = counted(int(scored.metrics['skipped']), 'image')
      rows.append(['skipped', f'{skipped} that cannot be decoded'])
    show(align([['', *row] for row in rows]))
  if scored.report:
    show(f'report: {scored.report}')
  return 0


if __name__ == '__main__':
  run_cli(main)
