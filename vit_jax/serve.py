"""Serves predictions over HTTP: `python -m vit_jax.serve MODEL...`."""

import argparse
import contextlib
import logging
import pathlib
import signal
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from vit_jax import machine
from vit_jax.arguments import Parser
from vit_jax.command_line import run_cli
from vit_jax.console import phase, show
from vit_jax.files import unique_stem
from vit_jax.inference.arguments import (
  batch_option,
  load_model,
  opening_options,
  weights_arguments,
  weights_options,
)

if TYPE_CHECKING:
  from vit_jax.inference.loaded import Loaded

log = logging.getLogger('vit_jax.serve')  # also where it is run as __main__

_DESCRIPTION = """\
Serves predictions over HTTP until Ctrl-C or SIGTERM, which wait for the requests that are open.

  GET  /         a page: choose or drop images
  POST /predict  an image as the body, a form with files, or JSON with base64; answers what
                 `predict --json` prints; ?top_k=N, and ?model=NAME where several are served
  GET  /model    classes, size of images
  GET  /health   200 once the models are compiled
"""


def _parser() -> Parser:
  parser = Parser(
    'serve',
    description=_DESCRIPTION,
    epilog='example: python -m vit_jax.serve runs/dogs\n'
    '         curl --data-binary @dog.jpg http://127.0.0.1:8000/predict',
  )
  add = parser.option
  what = "runs' workdirs, weights files, pretrained models' names or exported folders"
  add('models', tuple[str, ...], what, metavar='MODEL', path=True)
  add('--host', str, 'address to listen at; 0.0.0.0 is open to the network', '127.0.0.1')
  add('--port', int, 'port to listen at; 0 takes a free one', 8000, low=0, high=65535)
  add('--top_k', int, 'classes of an answer, unless a request says', 5, low=1, high=1 << 20)
  add('--max_mb', float, 'largest request in MB', 32.0, above=0, high=2048)
  batch_option(parser)
  opening_options(parser)
  weights_arguments(parser)
  return parser


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  args, made = _parser().parse_with(argv, opening=weights_options)
  from vit_jax.serving.batching import Service
  from vit_jax.serving.server import Server  # mistakes are reported before JAX loads

  server = Server(args.host, args.port, args.top_k, int(args.max_mb * 1e6))
  try:
    if server.is_open:
      log.warning(
        '--host=%s is open to the network: whoever reaches port %d may send images, without a '
        'password or encryption', args.host, server.server_port,
      )  # fmt: skip
    used: set[str] = set()
    services = [
      Service(unique_stem(_name_of(word), used), _load(word, args, made['opening']))
      for word in args.models
    ]
    with phase('compiling'):
      server.serve(services)
    with _signals() as stopped:
      show(f'serving {", ".join(server.services)} at {server.url}')
      show(f'  {_curl(server.url, list(server.services))}')
      while not stopped.wait(1.0):  # so that Windows sees Ctrl-C
        pass
      show('stopping: the requests that are open are answered first', error=True)
  finally:
    server.stop()
  show(f'{server.images:,} images were classified')
  return 0


def _curl(url: str, names: Sequence[str]) -> str:
  """A command that sends an image to the first of several models."""
  which = f'?model={urllib.parse.quote(names[0])}' if len(names) > 1 else ''
  return machine.shell_line(['curl', '--data-binary', '@IMAGE', f'{url}predict{which}'])


def _name_of(model: str) -> str:
  """How requests call a model: a file's name without its ending, a folder's or the model's name."""
  path = pathlib.Path(model)
  return (path.stem if path.is_file() else path.resolve().name) or model


def _load(model: str, args: argparse.Namespace, opening: dict) -> 'Loaded':
  from vit_jax.exporting.opened import Exported, is_export

  return Exported(model, args.batch_size) if is_export(model) else load_model(args, model, opening)


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
  """An event that Ctrl-C and SIGTERM set in the block; a second one acts as usual."""
  stopped = threading.Event()
  before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
  chosen = [n for n, handler in before.items() if handler is not signal.SIG_IGN]  # as by `nohup`

  def restore() -> None:
    for number in chosen:
      signal.signal(number, before[number])

  def stop(number: int, frame: FrameType | None) -> None:
    restore()
    stopped.set()

  for number in chosen:
    signal.signal(number, stop)
  try:
    yield stopped
  finally:
    restore()


if __name__ == '__main__':
  run_cli(main)
