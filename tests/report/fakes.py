"""Predictions whose every number is known, and a reader of pages that is strict."""

import base64
import hashlib
import html.parser
import urllib.parse
from importlib import resources

import numpy as np

from vit_jax import tasks
from vit_jax.report import Facts, Predictions, ReportLayout

CLASSES = ('ant', 'bee', 'cat')
ROWS = [
  {'step': 2, 'split': 'train', 'loss': 2.0, 'accuracy': 0.3, 'learning_rate': 0.1, 'img_sec': 4.0},
  {'step': 5, 'split': 'train', 'loss': 1.0, 'accuracy': 0.6, 'learning_rate': 0.0, 'img_sec': 2.0},
  {'step': 5, 'split': 'val', 'loss': 1.1, 'accuracy': 0.5},
  {'step': 5, 'split': 'test', 'loss': 1.2, 'accuracy': 0.55},
]


def layout(task: str) -> ReportLayout:
  """Of the reports of a task."""
  return tasks.build(task, len(CLASSES)).report_layout()


def predictions(labels, logits, classes=CLASSES, ids=None, facts=None, **rest) -> Predictions:
  labels = np.asarray(labels, np.int32)
  ids = ids or tuple(f'test/{i}.jpg' for i in range(len(labels)))
  return Predictions(
    tuple(classes),
    labels,
    np.asarray(logits, np.float32),
    tuple(ids),
    np.arange(len(labels)),
    facts or Facts('fake', model='vit_fake', dataset='some/images', split='test'),
    **rest,
  )


def random(n: int, k: int, seed: int = 0, skill: float = 1.0, labels=None, **rest) -> Predictions:
  """Random logits, the true one raised by `skill`."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, k, n) if labels is None else np.asarray(labels)
  logits = rng.normal(size=(n, k))
  logits[np.arange(n), labels] += skill
  return predictions(labels, logits, classes=[f'class {i}' for i in range(k)], **rest)


def image(position: int) -> np.ndarray:
  return np.full((13, 17, 3), 10 * position % 256, np.uint8)


# Every tag that a report may have.
TAGS = {
  *('html', 'head', 'meta', 'link', 'title', 'style', 'body', 'header', 'nav', 'main', 'footer'),
  *('section', 'h1', 'h2', 'h3', 'p', 'a', 'b', 'br', 'wbr', 'code', 'pre', 'small', 'span'),
  *('dl', 'div', 'dt', 'dd', 'figure', 'figcaption', 'img', 'details', 'summary'),
  *('table', 'thead', 'tbody', 'tr', 'th', 'td'),
  *('script', 'ul', 'li', 'button', 'form', 'label', 'select', 'option'),
}


class Checked(html.parser.HTMLParser):
  """Collects tags, addresses, images, table rows; fails on tags that do not close."""

  VOID = {'meta', 'link', 'img', 'br', 'wbr', 'input'}

  def __init__(self, text: str):
    super().__init__()
    self.open, self.addresses, self.images, self.ids, self.text = [], [], [], set(), ''
    self.tags, self.titles, self.rows = set(), [], []
    self.scripts, self.attributes, self.policy, self.starts = [], [], '', []
    self.feed(text)
    self.close()
    assert not self.open, self.open

  def handle_starttag(self, tag, attributes):
    found = dict(attributes)
    self.tags.add(tag)
    self.starts.append((tag, attributes))
    self.attributes += [(tag, k, v) for k, v in attributes]
    if found.get('http-equiv') == 'Content-Security-Policy':
      self.policy = found['content']
    if tag == 'script':
      assert not found, found
      self.scripts.append('')
    self.addresses += [v for k, v in found.items() if k in ('src', 'href')]
    self.ids |= {found['id']} if 'id' in found else set()
    self.titles += [found['title']] if 'title' in found else []
    if tag == 'img':
      self.images.append(found)
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open[-1:] == ['script']:
      self.scripts[-1] += data
      return
    self.text += data
    if {'td', 'th'} & set(self.open):
      self.rows[-1][-1] += data


def read(path) -> Checked:
  return Checked(path.read_text(encoding='utf-8'))


def check_self_contained(seen: Checked, folder) -> None:
  """Nothing is loaded from elsewhere, links lead to places or files, only our script may run."""
  for tag, name, value in seen.attributes:
    assert not name.startswith('on'), (tag, name)
    if name == 'src':
      assert value.startswith('data:image/'), value[:60]
    if name == 'href' and value.startswith('#'):
      assert value[1:] in seen.ids, value
    elif name == 'href' and not value.startswith('data:'):
      assert (folder / urllib.parse.unquote(value)).is_file(), value
  templates = resources.files('vit_jax.report.templates')
  own, theme = (templates.joinpath(n).read_text('utf-8') for n in ('script.js', 'theme.js'))
  own = own.replace("{% include 'theme.js' %}\n", theme.rstrip('\n'))
  assert [s.strip() for s in seen.scripts] == [own.strip()] and 'innerHTML' not in own
  digest = base64.b64encode(hashlib.sha256(seen.scripts[0].encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}'" in seen.policy and "default-src 'none'" in seen.policy
  assert all(image['alt'] for image in seen.images)
