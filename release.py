"""Writes a release's version and address into the files that state them, or checks them.

python release.py OWNER/NAME 0.2.0              version, changelog, citation and notebooks
python release.py --check OWNER/NAME@v0.2.0     what the release workflow does before it builds

Then commit, tag the commit v0.2.0 and push the tag. Needs nothing but Python.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent
_COLAB = 'https://colab.research.google.com/github'
_VERSION = r'\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?'
_REPOSITORY = r'[\w.-]+/[\w.-]+'


def version_of(root: pathlib.Path) -> str:
  """The package's own version."""
  text = (root / 'vit_jax/__init__.py').read_text('utf-8')
  return re.search(r"^__version__ = '(.*)'$", text, re.M)[1]


def repository_of(root: pathlib.Path) -> str:
  """'OWNER/NAME', as the first notebook has it."""
  text = next(iter(notebooks(root).values()))
  return re.search(rf'{_COLAB}/({_REPOSITORY})/blob/', text)[1]


def notebooks(root: pathlib.Path) -> dict[str, str]:
  """The text of each notebook by its name."""
  return {path.stem: path.read_text('utf-8') for path in sorted(root.glob('colabs/*.ipynb'))}


def jax_range(root: pathlib.Path) -> str:
  """The versions of JAX that pyproject.toml allows."""
  project = tomllib.loads((root / 'pyproject.toml').read_text('utf-8'))['project']
  return next(d for d in project['dependencies'] if re.match(r'jax\W', d)).removeprefix('jax')


def addressed(name: str, text: str, repository: str, version: str, jax: str) -> str:
  """A notebook with its badge and its install cell for this repository, version and JAX."""
  badge = f'{_COLAB}/{repository}/blob/v{version}/colabs/{name}.ipynb'
  text, badges = re.subn(rf'{_COLAB}/[^)]*\.ipynb', badge, text)
  lines = f"VERSION, REPOSITORY = '{version}', '{repository}'"
  text, addresses = re.subn(r"VERSION, REPOSITORY = '[^']*', '[^']*'", lines, text)
  text, ranges = re.subn(r"\bJAX = '[^']*'", f"JAX = '{jax}'", text)
  if (badges, addresses, ranges) != (1, 1, 1):
    raise SystemExit(f'error: colabs/{name}.ipynb: expected one badge and one install cell')
  json.loads(text)
  return text


def prepare(root: pathlib.Path, repository: str, version: str) -> None:
  """Writes version and address wherever they are stated."""
  for name, text in notebooks(root).items():
    text = addressed(name, text, repository, version, jax_range(root))
    (root / f'colabs/{name}.ipynb').write_text(text, 'utf-8')
  dated = f'version: {version}\ndate-released: {datetime.date.today().isoformat()}'
  _replace(root / 'vit_jax/__init__.py', r"^__version__ = '.*'$", f"__version__ = '{version}'")
  _replace(root / 'CITATION.cff', r'^version: .*(?:\ndate-released: .*)?$', dated)
  _replace(root / 'CHANGELOG.md', r'^## Unreleased$', f'## {version}')


def _replace(path: pathlib.Path, pattern: str, new: str) -> None:
  """The first line that matches, if there is one."""
  text = path.read_text('utf-8')
  path.write_text(re.sub(pattern, lambda _: new, text, count=1, flags=re.M), 'utf-8')


def problems_of(root: pathlib.Path, repository: str, tag: str) -> list[str]:
  """What does not fit a release of this tag, in one line each."""
  version = version_of(root)
  problems = []
  if tag != f'v{version}':
    problems.append(f'the tag is {tag}, and vit_jax/__init__.py has {version}')
  for name, text in notebooks(root).items():
    if text != addressed(name, text, repository, version, jax_range(root)):
      problems.append(f'colabs/{name}.ipynb is not of {repository} and {version}')
  if not re.search(rf'^version: {re.escape(version)}$', (root / 'CITATION.cff').read_text(), re.M):
    problems.append(f'CITATION.cff is not of {version}')
  headings = re.findall(r'^## (.*)$', (root / 'CHANGELOG.md').read_text('utf-8'), re.M)
  if not headings or headings[0] != version:
    problems.append(f'CHANGELOG.md begins with {headings[:1]}, not with {version}')
  return problems


def main(argv: list[str] | None = None) -> int:
  """The command; returns its exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('repository', help='OWNER/NAME; with --check OWNER/NAME@TAG')
  parser.add_argument('version', nargs='?', default='')
  parser.add_argument('--check', action='store_true', help='change nothing')
  args = parser.parse_args(argv)
  repository, _, tag = args.repository.partition('@')
  if not re.fullmatch(_REPOSITORY, repository):
    parser.error(f'expected OWNER/NAME, got {repository!r}')
  if args.check:
    problems = problems_of(ROOT, repository, tag)
    for problem in problems:
      print(f'error: {problem}', file=sys.stderr)
    return 1 if problems else 0
  if not re.fullmatch(_VERSION, args.version):
    parser.error(f'expected a version such as 0.2.0, got {args.version!r}')
  prepare(ROOT, repository, args.version)
  return 0


if __name__ == '__main__':
  sys.exit(main())
