"""What the site has beside the files of docs/: pages of the README and its kin, and of linked code.

In the repository a page links to what lies beside docs/ by its path (`../configs/deit.py`). On the
site such a file is a page of its own, or a copy where it is no text.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Files of the root that are pages.
PAGES = {
  'README.md': 'index.md',
  'CONTRIBUTING.md': 'contributing.md',
  'CHANGELOG.md': 'changelog.md',
}
WIDE = ('models.md',)  # pages of wide tables, which have the room of the contents beside them
# The languages of files that are shown as pages; others are copied.
SHOWN = {'.py': 'python', '.toml': 'toml', '.txt': 'text', '.yml': 'yaml', '': 'text'}
_LINK = re.compile(r'(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))')
_OPTION = re.compile(r'(?<![^\s>])--?[a-zA-Z][\w.]*=?')
_WORD = r'<span class="word">\g<0></span>'
_COLUMNS = re.compile(r'\S {3,}\S')  # of text that is laid out in columns
_CODE = re.compile(r'(^```.*?^```$)', re.M | re.S)


def on_files(files, config):
  """Adds the pages of the root, and what pages link to outside of docs/."""
  for source, page in PAGES.items():
    text = (ROOT / source).read_text('utf-8')
    files.append(File.generated(config, page, content=_rewritten(text, '', page)))
  linked = set()
  for path in [*(ROOT / name for name in PAGES), *sorted((ROOT / 'docs').glob('*.md'))]:
    folder = path.parent.relative_to(ROOT).as_posix()
    linked |= set(_targets(path.read_text('utf-8'), folder))
  for target in sorted(linked):
    path = ROOT / target
    if path.is_file() and path.suffix in SHOWN:
      content = f'# {target}\n\n```{SHOWN[path.suffix]}\n{path.read_text("utf-8")}```\n'
      files.append(File.generated(config, _place(target), content=content))
    elif path.is_file():
      files.append(File.generated(config, target, abs_src_path=str(path)))
  return files


def on_page_markdown(markdown, page, config, files):
  """Links of the repository as links of the site, and tables as this Markdown reads them."""
  if page.file.src_uri in WIDE:
    page.meta['hide'] = ['toc']
  made = page.file.src_uri in PAGES.values() or page.file.src_uri.startswith('source/')
  text = markdown if made else _rewritten(markdown, 'docs', page.file.src_uri)
  # Within code a bar ends no cell here, and a backslash before it would show.
  return re.sub(r'`[^`\n]+`', lambda found: found[0].replace('\\|', '|'), text)


def on_post_page(output, page, config):
  """The theme's dialog of the search has no name."""
  return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_template(output_content, template_name, config):
  """The same on the page of a wrong address."""
  return on_post_page(output_content, None, config)


def on_page_content(html, page, config, files):
  """Code is broken at its bars alone, and no block between '--' and a name.

  An image leads to itself in full size.
  """

  def marked(found):
    if len(found[1]) <= 30:
      return f'<code class="short">{_OPTION.sub(_WORD, found[1])}</code>'
    breakable = _OPTION.sub(_WORD, found[1].replace('|', '|<wbr>').replace('=', '=<wbr>'))
    return f'<code>{breakable}</code>'

  def block(found):
    if len(_COLUMNS.findall(found[1])) > 1:
      return f'<pre class="columns">{found[1]}</pre>'
    return f'<pre>{_OPTION.sub(_WORD, found[1])}</pre>'

  html = re.sub('<pre>(.*?)</pre>', block, html, flags=re.S)
  html = re.sub(r'(?<!</span>)<code>([^<>\n]+)</code>', marked, html)
  return re.sub(r'<img [^>]*src="([^"]+)"[^>]*/?>', r'<a href="\1">\g<0></a>', html)


def _parts(text):
  """The text as (part, whether it is prose): what looks like a link in a block of code is none."""
  return [(part, i % 2 == 0) for i, part in enumerate(_CODE.split(text))]


def _targets(text, folder):
  """Paths from the root of what a page links to beside docs/ and the pages of the root."""
  for part, prose in _parts(text):
    for found in _LINK.finditer(part) if prose else ():
      target = posixpath.normpath(posixpath.join(folder, found[2]))
      if '://' not in found[2] and not target.startswith('docs/') and target not in PAGES:
        yield target


def _place(target):
  """Where the site has a file of the repository."""
  if target in PAGES:
    return PAGES[target]
  if target.startswith('docs/'):
    return target.removeprefix('docs/')
  return f'source/{target}.md' if pathlib.Path(target).suffix in SHOWN else target


def _rewritten(text, folder, page):
  """A page's Markdown with its links as the site has them.

  Args:
    text: as it is in the repository.
    folder: of the file there, from the root.
    page: where the site has it.
  """

  def moved(found):
    if '://' in found[2] or found[2].startswith('mailto:'):
      return found[0]
    target = _place(posixpath.normpath(posixpath.join(folder, found[2])))
    near = posixpath.relpath(target, posixpath.dirname(page) or '.')
    return f'{found[1]}{near}{found[3] or ""}{found[4]}'

  parts = [_LINK.sub(moved, part) if prose else part for part, prose in _parts(text)]
  return ''.join(parts)
