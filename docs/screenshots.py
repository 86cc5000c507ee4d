"""Makes the screenshots of the site by running the program and looking at its pages in Chromium.

  python docs/screenshots.py build/screenshots

Trains the demo and a small CNN on handwritten digits, compares them, trains class and box on the
embedded shapes, and writes docs/images/*.webp. Needs Chromium or Chrome. What is in the folder
already is used as it is.
"""

import asyncio
import base64
import contextlib
import io
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import urllib.request

from PIL import Image
from tornado.websocket import websocket_connect

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUT = ROOT / 'docs' / 'images'
MOST = 150_000  # bytes of an image

# Sections of a report by their headings: the image of each, and its height in pixels at most.
REPORT = {
  'Learning curves': ('report_curves', 490),
  'Classes': ('report_classes', 700),
  'Calibration': ('report_calibration', 760),
  'Confusion': ('report_confusion', 516),
  'Images': ('report_images', 760),
  'Time and memory': ('report_time', 700),
}


class Browser:
  """A headless Chromium, driven over its debugging protocol."""

  @classmethod
  @contextlib.asynccontextmanager
  async def open(cls):
    """Starts one; ends it with the block."""
    program = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chrome'))), None)
    if program is None:
      sys.exit('Chromium is not installed')
    with socket.socket() as s:
      s.bind(('127.0.0.1', 0))
      port = s.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
      process = subprocess.Popen(
        [program, '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
        + [f'--remote-debugging-port={port}', f'--user-data-dir={profile}', 'about:blank'],
        stderr=subprocess.DEVNULL,
      )
      try:
        yield await cls()._connected(port)
      finally:
        process.terminate()
        process.wait()

  async def _connected(self, port):
    for _ in range(100):
      try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/json') as answer:
          page = next(p for p in json.load(answer) if p['type'] == 'page')
        break
      except OSError:
        await asyncio.sleep(0.2)
    else:
      sys.exit('Chromium did not start')
    self._socket = await websocket_connect(page['webSocketDebuggerUrl'], max_message_size=1 << 28)
    self._count = 0
    return self

  async def call(self, method, **parameters):
    """A command of the protocol; its result."""
    self._count += 1
    message = {'id': self._count, 'method': method, 'params': parameters}
    await self._socket.write_message(json.dumps(message))
    while True:
      answer = json.loads(await self._socket.read_message())
      if answer.get('id') == self._count:
        return answer['result']

  async def go(self, url, width=1280, height=900, dark=False, scale=1.0):
    """Opens a page in a window of this size, in pixels."""
    await self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width, height=height, deviceScaleFactor=scale, mobile=width < 600,
    )  # fmt: skip
    value = 'dark' if dark else 'light'
    await self.call(
      'Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': value}]
    )
    await self.call('Page.navigate', url=url)
    for _ in range(100):
      await asyncio.sleep(0.2)
      if await self.run('document.readyState') == 'complete':
        break
    await asyncio.sleep(1)

  async def run(self, script):
    """The value of an expression on the page."""
    found = await self.call('Runtime.evaluate', expression=script, returnByValue=True)
    return found['result'].get('value')

  async def shot(self, box=None):
    """The page, or a part of it (x, y, width, height), as an image."""
    clip = None
    if box is not None:
      clip = dict(zip(('x', 'y', 'width', 'height'), box), scale=1)
    more = {'clip': clip} if clip else {}
    answer = await self.call('Page.captureScreenshot', captureBeyondViewport=bool(clip), **more)
    return Image.open(io.BytesIO(base64.b64decode(answer['data']))).convert('RGB')

  async def box_of(self, selector):
    """(x, y, width, height) of the first element, from the top of the page."""
    return await self.run(
      f'(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();'
      'return [r.x + scrollX, r.y + scrollY, r.width, r.height] })()'
    )


def program(*words, folder):
  """Runs a command of the program; what it printed."""
  done = subprocess.run(
    [sys.executable, '-m', *words], cwd=folder, capture_output=True, text=True, encoding='utf-8'
  )
  if done.returncode:
    sys.exit(f'{" ".join(words)}: {done.stderr}')
  return done.stdout.replace(sys.executable, 'python')


def train(name, *words, folder):
  """A run, unless it is there; what it printed."""
  if (folder / 'runs' / name / 'report').exists():
    return ''
  return program('vit_jax.main', *words, f'--workdir=runs/{name}', folder=folder)


def save(image, name, width=1000):
  """Writes an image as WebP, no wider than this and as good as its size allows."""
  if image.width > width:
    image = image.resize((width, round(image.height * width / image.width)), Image.LANCZOS)
  for quality in (90, 80, 70, 60, 50, 40):
    image.save(OUT / f'{name}.webp', quality=quality, method=6)
    if (OUT / f'{name}.webp').stat().st_size < MOST:
      return
  sys.exit(f'{name} is too large')


TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; background: #1e1e2e; width: max-content; }
pre { margin: 0; padding: 18px 22px; color: #e4e4ef; font: 15px/1.45 monospace; }
b { color: #9ece6a; font-weight: normal; }</style><pre>%s</pre>"""


async def main(folder):
  """Makes everything below the folder, then the images."""
  folder.mkdir(parents=True, exist_ok=True)
  OUT.mkdir(exist_ok=True)
  log = folder / 'digits.txt'
  if not log.exists():
    log.write_text(train('digits', '--config=vit_digits', folder=folder), 'utf-8')
  small = ['--config.model.name=resnet50', '--config.model.width=16', '--config.total=20 epochs']
  train('resnet', '--config=vit_digits', *small, '--config.model.blocks=1,1,1', folder=folder)
  train('boxes', '--config=vit_shapes:boxes', folder=folder)
  if not (folder / 'comparison').exists():
    program('vit_jax.compare', 'runs/digits', 'runs/resnet', '--out=comparison', folder=folder)
  async with Browser.open() as browser:
    await terminal(browser, folder, log.read_text('utf-8'))
    await browser.go((folder / 'runs/digits/report/report.html').as_uri(), height=860)
    save(await browser.shot(), 'report')
    for heading, (name, height) in REPORT.items():
      save(await browser.shot(await section(browser, heading, height)), name)
    await browser.go((folder / 'runs/boxes/report/report.html').as_uri())
    save(await browser.shot(await section(browser, 'Images', 700)), 'report_boxes')
    await browser.go((folder / 'comparison/compare.html').as_uri(), height=860)
    save(await browser.shot(), 'comparison')


async def terminal(browser, folder, text):
  """What a run prints, as a terminal shows it."""
  lines = []
  for line in text.replace('&', '&amp;').replace('<', '&lt;').splitlines():
    label = re.match(r'\w+ {2,}', line)
    indent = ' ' * len(label[0]) if label else ''
    lines += textwrap.wrap(line, 110, subsequent_indent=indent) or ['']
  rows = [i for i, line in enumerate(lines) if line[:1] == ' ' and '*' in line]
  lines = [f'<b>{line}</b>' if i in rows else line for i, line in enumerate(lines)]
  page = folder / 'terminal.html'
  prompt = '$ python -m vit_jax.main --config=vit_digits --workdir=runs/digits'
  page.write_text(TERMINAL % '\n'.join([f'<b>{prompt}</b>', *lines]), 'utf-8')
  await browser.go(page.as_uri())
  save(await browser.shot(await browser.box_of('pre')), 'terminal')


async def section(browser, heading, most):
  """The part of a page from a heading on, at most so many pixels high."""
  await browser.run(
    f'(() => {{ const h = [...document.querySelectorAll("h2")].find('
    f'e => e.textContent.trim().startsWith({json.dumps(heading)}));'
    'document.querySelector("#wanted")?.removeAttribute("id"); h.parentElement.id = "wanted"; })()'
  )
  x, y, width, height = await browser.box_of('#wanted')
  return x - 8, y - 8, width + 16, min(height, most) + 16


if __name__ == '__main__':
  asyncio.run(main(pathlib.Path(sys.argv[1]).resolve()))
