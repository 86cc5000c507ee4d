"""What README and docs/ say one can type, open and set: commands, flags, options, files, links."""

import ast
import contextlib
import functools
import importlib
import pathlib
import re
import shlex

import pytest

from vit_jax import __main__ as program
from vit_jax import config, config_files, data, parallel
from vit_jax.arguments import parser_of, split_overrides
from vit_jax.errors import UserError
from vit_jax.exporting import script
from vit_jax.training import summary
from vit_jax.usage import table
from vit_jax.weights import hub

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']  # a changelog names what is gone
PAGES += sorted((ROOT / 'docs').glob('*.md'))
by_page = pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)

# Of other programs, in prose: tensorboard, tfds and SLURM.
FOREIGN_FLAGS = {'--logdir', '--file_format', '--ntasks-per-node'}
# Folders of a checkout: what is named within them must exist.
OURS = ('configs', 'docs', 'tests', 'benchmarks', 'colabs', 'vit_jax')
NO_OPTIONS = {'geometric', 'remat', 'jax_cpu_enable_async_dispatch'}  # arguments and fields in code
FILE_ENDINGS = (
  'safetensors',
  'json',
  'stablehlo',
)  # of files that are called as a group of options is
_FENCE = re.compile(r'^```(\w*)[^\n]*\n(.*?)^```$', re.M | re.S)
_SPAN = re.compile(r'(?<!`)`([^`]+)`(?!`)')
_LINK = re.compile(r'!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)')


@functools.cache
def _read(page):
  return page.read_text('utf-8')


def _prose(text):
  return _FENCE.sub('', text)


def _spans(text):
  """Code within prose, each on one line."""
  return [' '.join(span.split()) for span in _SPAN.findall(_prose(text))]


def _lines_of(block):
  """Commands of a block, continued lines joined, variables replaced."""
  known = {}
  for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
    for name, value in known.items():
      line = line.replace(f'${name}', value)
    if found := re.fullmatch(r'([A-Z]+)="(.*)"', line.strip()):
      known[found[1]] = found[2]
    else:
      yield line.strip().removeprefix('$ ')


def _commands(text):
  """Command lines as words: of the program, of its scripts, and of make."""
  lines = [line for _, block in _FENCE.findall(text) for line in _lines_of(block)]
  for line in [*lines, *_spans(text)]:
    line = re.sub(r'^([A-Z_]+=\S+ +)+', '', line)
    if not re.match(r'python3? -m vit_jax|vit_jax [a-z]|python \S+\.py\b|make [a-z]+( |$)', line):
      continue
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in ('|', '>', '&&', '&') or word[:1] == '>']
    yield words[: ends[0]] if ends else words


def _is_placeholder(word):
  return bool(re.fullmatch(r'[A-Z][A-Z_]*(\.\.\.)?|\.\.\.', word))


@functools.cache
def _known():
  """The commands by name."""
  found = program.commands()
  return {name: importlib.import_module(module).main for name, (module, _) in found.items()}


def _name_and_arguments(words):
  """The command's name, or None for the program itself, and its arguments."""
  if words[0] == 'vit_jax':
    return words[1], words[2:]
  module = words[2]
  if module == 'vit_jax':
    return (words[3] if len(words) > 3 else None), words[4:]
  return {'main': 'train'}.get(module.split('.', 1)[1], module.split('.', 1)[1]), words[3:]


def _check_program(words):
  name, arguments = _name_and_arguments(words)
  if name in (None, 'COMMAND') or name.startswith('--') or not arguments:
    return
  parser = parser_of(_known()[name])
  others, overrides, problems = split_overrides(arguments)
  assert not problems, problems
  if parser is None:  # of no flags
    assert not [word for word in arguments if word.startswith('-')]
    return
  if any(_is_placeholder(word) for word in (*others, *arguments)) or any('[' in w for w in others):
    flags = {flag.name for flag in parser.flags()}
    unknown = {word.partition('=')[0] for word in others if word.startswith('--')} - flags
    assert not unknown, unknown
  elif not any(word.startswith('--help') for word in others):
    parser.parse_args(others)
  if name == 'train':
    _check_options(
      [word.partition('=')[2] for word in others if word[:9] == '--config='], overrides
    )


def _check_options(files, overrides):
  rows = _rows()
  for name in overrides:
    assert name in rows or name == 'NAME', f'config.{name}'
  if files and not _is_placeholder(re.split(r'[\[:]', files[0])[0]):
    config_files.find(files[0])
    values = {n: v for n, v in overrides.items() if n != 'NAME' and not _is_placeholder(v)}
    _, problems = config.load_all(files[0], values)
    assert not problems, problems


@functools.cache
def _rows():
  """Every option and model field."""
  known = table.load()
  return {*known.rows, *(row.name for family in known.families.values() for row in family.rows)}


@by_page
def test_commands_can_be_typed(page, monkeypatch):
  monkeypatch.chdir(ROOT)
  for words in _commands(_read(page)):
    try:
      if words[0] == 'make':
        targets = re.findall(r'^([a-z]+):', _read(ROOT / 'Makefile'), re.M)
        assert set(words[1:]) <= {*targets, *[w for w in words if '=' in w]}, words
      elif words[1].endswith('.py'):
        exported = words[1].endswith(f'_export/{script.FILE}')  # `export` writes it
        text = _read(pathlib.Path(script.__file__) if exported else ROOT / words[1])
        flags = {word.partition('=')[0] for word in words if word.startswith('--')}
        assert all(f"'{flag}'" in text for flag in flags), flags
        chosen = [word.partition('=')[2] for word in words if word.startswith('--model=')]
        assert all(f"'{name}'" in text for name in chosen), chosen
      else:
        _check_program(words)
    except (AssertionError, UserError, OSError, KeyError) as e:
      raise AssertionError(f'{page.name}: {shlex.join(words)}: {e!r}') from e


@by_page
def test_options_and_flags_in_the_text_exist(page):
  rows, groups, flags = _rows(), table.load().groups, _flags()
  wrong = []
  text = _ours_of_tables(_read(page)) if page.name.startswith('from_') else _read(page)
  for span in _spans(text):
    span = span.removeprefix('--config.').removeprefix('config.')
    if found := re.match(r'([a-z_]+)\.([a-z_0-9]+)(?![\w./(])', span):
      if found[1] in groups and found[0] not in rows and found[2] not in FILE_ENDINGS:
        wrong.append(span)
    elif found := re.match('([a-z_]+)=', span):
      if found[1] not in rows and found[1] not in NO_OPTIONS:
        wrong.append(span)
    elif re.match('--(?!xla_)', span) and re.split('[= ]', span)[0] not in flags:
      wrong.append(span)
  assert not wrong


@by_page
def test_transforms_in_the_text_can_be_parsed(page):
  for span in _spans(_read(page).replace('\\|', '|')):
    found = re.fullmatch(r"(?:[\w.-]+=)?'?(decode\|[^'=]*(?:=\d+[^'=]*)*)'?", span)
    if found and 'OP' not in found[1]:
      data.parse_transform(found[1], (224, 224), train=True, fixed_size=False)


@functools.cache
def _flags():
  """Every flag of a command or a benchmark."""
  flags = {'--help', '--version', *FOREIGN_FLAGS}
  for command in _known().values():
    parser = parser_of(command)
    flags |= {flag.name for flag in parser.flags()} if parser else set()
  benchmarks = ''.join(_read(path) for path in (ROOT / 'benchmarks').glob('*.py'))
  return flags | set(re.findall(r"'(--\w+)'", benchmarks))


def _ours_of_tables(text):
  """A page without the first column of its tables, where the names are those of others."""
  return re.sub(r'^\|[^|]*\|', '|', text.replace('\\|', ' '), flags=re.M)


@by_page
def test_files_modules_and_variables_in_the_text_exist(page):
  source = ''.join(map(_read, [*(ROOT / 'vit_jax').rglob('*.py'), *(ROOT / 'tests').glob('*.py')]))
  wrong = []
  for span in _spans(_read(page)):
    path = span.split(':')[0]
    if (
      re.fullmatch(rf'({"|".join(OURS)})(/[\w.-]+)+/?', path)
      and 'NAME' not in path
      and not (ROOT / path).exists()
    ):
      wrong.append(span)
    found = re.fullmatch(r'(vit_jax(?:\.\w+)+)(\(.*\))?', span)
    if found and not _resolves(found[1]):
      wrong.append(span)
    wrong += [name for name in re.findall(r'\bVIT_JAX_[A-Z_]+', span) if name not in source]
  assert not wrong


def _resolves(name):
  """Whether a dotted name is a module or something of one."""
  parts = name.split('.')
  for n in range(len(parts), 0, -1):
    try:
      found = importlib.import_module('.'.join(parts[:n]))
    except ModuleNotFoundError:
      continue
    for attribute in parts[n:]:
      found = getattr(found, attribute, None)
    return found is not None
  return False


@by_page
def test_python_in_the_text_parses_and_imports_what_exists(page):
  for language, block in _FENCE.findall(_read(page)):
    for node in ast.walk(ast.parse(block)) if language == 'python' else ():
      if isinstance(node, ast.ImportFrom) and node.module.startswith('vit_jax'):
        missing = [n.name for n in node.names if not _resolves(f'{node.module}.{n.name}')]
        assert not missing, f'{node.module}: {missing}'


@by_page
def test_links_lead_somewhere(page):
  wrong = []
  for target in _LINK.findall(_prose(_read(page))):
    path, _, anchor = target.partition('#')
    if '://' in target:
      continue
    there = (page.parent / path).resolve() if path else page
    known = there.exists() and there.is_relative_to(ROOT)
    if not known or (anchor and anchor not in _anchors(_read(there))):
      wrong.append(target)
  assert not wrong


def _anchors(text):
  """The ids that headings have, in the repository's pages and on the site alike."""
  titles = re.findall(r'^#+ (.+)$', _prose(text), re.M)
  plain = [re.sub(r'[^\w\s-]', '', re.sub(r'[`*]', '', title)).strip().lower() for title in titles]
  return {re.sub(r'[\s-]+', '-', title) for title in plain}


def test_the_readme_is_short():
  assert _read(ROOT / 'README.md').count('\n') < 200


def test_images_are_small_and_have_alternative_texts():
  used = set()
  for page in PAGES:
    for text, target in re.findall(r'!\[([^\]]*)\]\(([^)\s]+)\)', _read(page)):
      assert len(text) > 20, f'{page.name}: {target} has no text for those who do not see it'
      used.add((page.parent / target).resolve())
  assert all(path.stat().st_size < 150_000 for path in used)
  images = {p for p in (ROOT / 'docs').rglob('*') if p.suffix in ('.png', '.webp', '.svg')}
  assert images == used


def _messages():
  """All texts in the program, in the parts between which something is filled in."""
  found = []
  for path in (ROOT / 'vit_jax').rglob('*.py'):
    for node in ast.walk(ast.parse(_read(path))):
      if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else '\0' for v in node.values]
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        parts = [re.sub(r'%[-+.,\d]*[srd]', '\0', node.value).replace('%%', '%')]
      else:
        continue
      text = ''.join(parts)
      if len(text.replace('\0', '')) >= 20 and '\n' not in text:
        found.append(text.split('\0'))
  return found


def _raised(home):
  """Messages of mistakes that can be made here and now, in a folder where somebody works."""
  (home / 'images').mkdir()

  def options(**overrides):
    return lambda: config.load('digits', {n.replace('__', '.'): v for n, v in overrides.items()})

  for mistake in (
    options(batch_size='60', accumulate='8'),
    options(input__image_size='60'),
    options(optimizer__lerning_rate='1'),
    lambda: parallel.check_batch_size('config.batch_size', 60, 8, summary.shares_text(8, 1)),
    lambda: hub.pretrained_models()['vit_b16.i21'],
    lambda: data.open_dataset('imags'),
  ):
    with pytest.raises(UserError) as caught, contextlib.chdir(home):
      mistake()
    yield f'error: {caught.value}'.replace(str(home), '/home/me')


def test_messages_of_the_troubleshooting_page_are_the_programs(tmp_path):
  text = _read(ROOT / 'docs' / 'troubleshooting.md')
  lines = [line for _, block in _FENCE.findall(text) for line in block.splitlines()]
  assert len(lines) > 10 and all(line.startswith(('error: ', 'warning: ')) for line in lines)
  raised = set(_raised(tmp_path))
  assert raised <= set(lines)
  messages = _messages()
  for line in set(lines) - raised:
    covered = set()
    for parts in messages:
      if all(part in line for part in parts):
        for found in re.finditer('.*?'.join(map(re.escape, parts)), line):
          covered |= set(range(*found.span()))
    message = line.partition(': ')[2]
    unknown = len(message) - len(covered)
    assert unknown < 0.35 * len(message), line
