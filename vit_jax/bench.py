"""Measures training, inference and input speed of a model: `python -m vit_jax.bench MODEL...`."""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

from vit_jax import machine
from vit_jax.arguments import Parser
from vit_jax.benchmark.measure import PARTS, measure
from vit_jax.benchmark.side_by_side import PEERS, compare
from vit_jax.benchmark.side_by_side import table as comparison_table
from vit_jax.command_line import run_cli
from vit_jax.console import show
from vit_jax.errors import ConfigError, counted, did_you_mean
from vit_jax.files import check_new_file, writing
from vit_jax.inference.arguments import check_model_name, fields_of
from vit_jax.options import LARGEST_SIDE

_DESCRIPTION = """\
Measures models on this machine: images/s in training (AdamW) and inference, the time to
the first step, MFU (the share of the device's matmul peak that the model's own arithmetic takes),
memory, and how fast JPEGs are read, cropped and resized.

examples:
  python -m vit_jax.bench vit_s16 --batch_size=16
  python -m vit_jax.bench vit_b16 resnet50 --dtype=bfloat16 --batch_size=128 --json=bench.json
  python -m vit_jax.bench vit_ti16 --only=train --set remat=block --set drop_path_rate=0.1
  python -m vit_jax.bench vit_ti16 --only=input --dataset=path/to/images
  python -m vit_jax.bench vit_s16 mobilenet_v2 --compare=timm --peer_python=path/to/bin/python

Rates are medians over --steps steps after the first. The first step is timed from the call to the
result: tracing, compilation (or reading it from the cache) and one step. Compare machines only when
nothing else runs on them. --compare times the same architecture in another library in turns with
ours, each in a process of its own, so that both meet the same machine: --steps rounds, one call of
each a round; --peer_python is a Python where torch and timm are installed.
"""


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, found = _parser().parse_with(
    argv, fields=lambda args: fields_of(args.set), peers=lambda args: _peers(args.compare)
  )
  fields = {'dtype': args.dtype, **found['fields']}
  if found['peers']:
    return _compare(args, found['peers'], fields)
  rows = []
  for model in args.models:
    rows.append(
      measure(
        model,
        args.only or PARTS,
        batch_size=args.batch_size,
        image_size=args.image_size,
        classes=args.classes,
        steps=args.steps,
        dataset=args.dataset,
        fields=fields,
      )
    )
    show(table(rows[-1]))
  _write(rows, args.json)
  return 0


def _peers(text: str) -> list[str]:
  """The libraries that --compare names."""
  peers = text.split(',') if text else []
  wrong = [
    f'--compare={text}: {peer!r} is unknown: {did_you_mean(peer, PEERS)}'
    for peer in peers
    if peer not in PEERS
  ]
  if wrong:
    raise ConfigError(wrong)
  return peers


def _compare(args: argparse.Namespace, peers: list[str], fields: dict[str, Any]) -> int:
  parts = tuple(part for part in args.only or PARTS if part != 'input')
  if not parts:
    raise ConfigError('--compare times training and inference: it has no --only=input')
  rows = []
  for model in args.models:
    timings = compare(
      model,
      peers,
      python=args.peer_python or sys.executable,
      batch_size=args.batch_size,
      image_size=args.image_size,
      classes=args.classes,
      rounds=args.steps,
      parts=parts,
      fields=fields,
    )
    rows.append(
      {
        'model': model,
        'batch_size': args.batch_size,
        'image_size': args.image_size,
        'fields': fields,
        'processor': machine.processor_name(),
        'cores': machine.cores(),
        'peers': {name: dataclasses.asdict(timing) for name, timing in timings.items()},
      }
    )
    title = f'{model}  batch {args.batch_size}, {args.image_size} pixels'
    show(f'{title}, {machine.processor_name()}, {counted(machine.cores(), "core")}')
    show(comparison_table(timings))
  _write(rows, args.json)
  return 0


def _write(rows: list[dict[str, Any]], path: str) -> None:
  if path == '-':
    show(json.dumps(rows))
  elif path:
    with writing(path):
      pathlib.Path(path).write_text(json.dumps(rows, indent=2) + '\n', 'utf-8')


def _parser() -> Parser:
  made = Parser('bench', description=_DESCRIPTION)
  add = made.option
  named = 'registered names, such as vit_s16'
  add('models', tuple[str, ...], named, metavar='MODEL', parse=check_model_name)
  parts = 'measure this part (may be repeated)'
  made.add_argument('--only', action='append', choices=PARTS, help=parts)
  add('--batch_size', int, 'global batch size', 16, low=1, high=1 << 20)
  add('--image_size', int, 'height and width, pixels', 224, low=1, high=LARGEST_SIDE)
  add('--classes', int, 'outputs of the head', 1000, low=1, high=1 << 20)
  add('--steps', int, 'timed steps', 8, low=1, high=10**6)
  add('--dtype', str, 'precision of the computation: float32 or bfloat16', 'float32')
  setting = 'any field of the model'
  made.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE', help=setting)
  add(
    '--dataset',
    str,
    'images to read; otherwise JPEGs of 500 x 375 are made',
    '',
    path=True,
    remote=True,
  )
  peers = f'time these in turns with ours, separated by commas: {", ".join(PEERS)}'
  add('--compare', str, peers, '', metavar='PEERS')
  add('--peer_python', str, 'interpreter with their packages; otherwise this one', '', path=True)
  written = "also write JSON here ('-': to standard output)"
  add('--json', str, written, '', metavar='FILE', path=True, parse=check_new_file)
  return made


def table(row: dict[str, Any]) -> str:
  """A measurement as text."""
  title = f'{row["model"]}  batch {row["batch_size"]}, {row["image_size"]} pixels'
  lines = [f'{title}, {row["device"]}, {counted(row["cores"], "core")}']
  for part in ('train', 'infer'):
    if f'{part}_img_sec' in row:
      mfu = row.get(f'{part}_mfu')
      lines.append(
        f'  {part:6} {row[f"{part}_img_sec"]:8.2f} images/s, '
        f'first step {row[f"{part}_first_step_s"]:.1f} s'
        + (f', MFU {mfu:.0%}' if mfu is not None else '')
      )
  if 'input_img_sec' in row:
    lines.append(f'  input  {row["input_img_sec"]:8.0f} images/s')
  memory = [
    f'{row[key]:.0f} MiB of the {where}'
    for where in ('host', 'device')
    if (key := f'{where}_memory_peak_mib') in row
  ]
  lines.append(f'  memory {", ".join(memory) or "unknown"}')
  if row['peak_tflops']:
    lines.append(f'  peak   {row["peak_tflops"]:8.2f} TFLOP/s ({row["peak_source"]})')
  return '\n'.join(lines + [f'  {k:10} {v}' for k, v in row['runtime'].items()])


if __name__ == '__main__':
  if sys.argv[1:] == []:
    sys.argv.append('--help')
  run_cli(main)
