"""Workflows, hooks, citation, changelog and releases agree with the program."""

import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import release
import vit_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']
MAKEFILE = (ROOT / 'Makefile').read_text('utf-8')
WORKFLOWS = {path.stem: path for path in sorted((ROOT / '.github/workflows').glob('*.yml'))}


def _yaml(path):
  # Strings alone: YAML would read `on` as true and 3.10 as 3.1.
  return yaml.load(path.read_text('utf-8'), yaml.BaseLoader)


def _jobs(name):
  return _yaml(WORKFLOWS[name])['jobs']


def _recipe(target):
  """The commands of a target, as they are run."""
  recipe = re.search(rf'^{target}:.*\n((?:\t.*\n)+)', MAKEFILE, re.M)[1]
  return [line.strip().replace('$(BIN)', '.venv/bin') for line in recipe.splitlines()]


def test_the_tests_run_on_the_pythons_that_the_package_names():
  named = [c.rpartition(' ')[2] for c in PROJECT['classifiers'] if c.count('Python :: 3.')]
  assert _jobs('tests')['tests']['strategy']['matrix']['python'] == named
  assert PROJECT['requires-python'] == f'>={named[0]}'
  for path in WORKFLOWS.values():
    for job in _yaml(path)['jobs'].values():
      used = {s['with']['python-version'] for s in job['steps'] if 'setup-python' in str(s)}
      assert used <= {*named, '${{ matrix.python }}'}, path


@pytest.mark.parametrize('name', WORKFLOWS)
def test_workflows_run_what_make_runs(name):
  workflow = _yaml(WORKFLOWS[name])
  assert workflow['permissions'] == {'contents': 'read'}  # a job that needs more says so itself
  targets = set(re.findall(r'^([a-z]+):', MAKEFILE, re.M))
  commands = []
  for job in workflow['jobs'].values():
    assert 'timeout-minutes' in job and 'runs-on' in job
    for step in job['steps']:
      assert ('run' in step) != ('uses' in step)
      assert 'run' in step or re.fullmatch(r'[\w-]+/[\w/-]+@[\w./-]+', step['uses'])
      commands += [step['run']] if 'run' in step else []
  made = [command for command in commands if not command.startswith('gh release create')]
  assert made and all(re.fullmatch(r'make [a-z]+', command) for command in made), commands
  assert {command.split()[1] for command in made} <= targets


def test_every_target_of_the_makefile_is_explained():
  targets = set(re.findall(r'^([a-z]+):', MAKEFILE, re.M)) - {'help', 'lint', 'clean'}
  said = set(re.findall(r"@echo 'make (\w+)", MAKEFILE))
  assert said == targets
  phony = re.search(r'^\.PHONY: (.*)$', MAKEFILE, re.M)[1].split()
  assert set(phony) == targets | {'help', 'lint', 'clean'}


def test_hooks_run_what_lint_runs():
  (repository,) = _yaml(ROOT / '.pre-commit-config.yaml')['repos']
  assert repository['repo'] == 'local'  # one version of each tool, that of constraints.txt
  assert [hook['entry'] for hook in repository['hooks']] == _recipe('lint')
  assert {hook['pass_filenames'] for hook in repository['hooks']} == {'false'}


def test_a_release_checks_builds_and_publishes_without_a_token():
  jobs = _jobs('release')
  build, publish = jobs['build'], jobs['publish']
  dist = next(step for step in build['steps'] if step.get('run') == 'make dist')
  assert dist['env']['RELEASE'] == '${{ github.repository }}@${{ github.ref_name }}'
  assert any('release.py --check $(RELEASE)' in line for line in _recipe('dist'))
  assert publish['needs'] == 'build'
  assert publish['permissions'] == {'contents': 'write', 'id-token': 'write'}
  assert any('pypi-publish' in step.get('uses', '') for step in publish['steps'])
  assert 'secrets.' not in WORKFLOWS['release'].read_text('utf-8')


def test_issue_forms_have_what_they_need():
  forms = sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml'))
  assert [path.stem for path in forms] == ['bug', 'config', 'feature']
  for path in (forms[0], forms[2]):
    form = _yaml(path)
    assert form['name'] and form['description'] and form['body'], path
    ids = [part['id'] for part in form['body']]
    assert len(set(ids)) == len(ids) and all(part['attributes']['label'] for part in form['body'])


def test_the_citation_is_of_this_version_and_names_the_papers():
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text('utf-8'))
  assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)  # as the format requires
  assert citation['version'] == vit_jax.__version__ and citation['license'] == PROJECT['license']
  papers = {paper['identifiers'][0]['value'] for paper in citation['references']}
  for paper in citation['references']:
    assert paper['title'] and paper['authors'] and paper['type'] == 'article'
    assert paper['url'].endswith(paper['identifiers'][0]['value'].removeprefix('arXiv:'))
  # Where the numbers of the models come from.
  families = (
    '2010.11929 2106.10270 2105.01601 2012.12877 2103.17239 2101.11986 1512.03385 1912.11370'
  )
  assert {f'arXiv:{number}' for number in families.split()} <= papers


def test_the_changelog_is_kept_by_version():
  headings = re.findall(r'^## (.*)$', (ROOT / 'CHANGELOG.md').read_text('utf-8'), re.M)
  versions = headings[headings[0] == 'Unreleased' :]
  assert versions[0] == vit_jax.__version__
  numbers = [tuple(int(part) for part in version.split('.')) for version in versions]
  assert numbers == sorted(set(numbers), reverse=True)


@pytest.fixture
def tree(tmp_path):
  """A copy of the files that a release writes, and of what it reads."""
  for name in ('vit_jax/__init__.py', 'CITATION.cff', 'CHANGELOG.md', 'pyproject.toml'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / name, tmp_path / name)
  shutil.copytree(ROOT / 'colabs', tmp_path / 'colabs')
  return tmp_path


def test_a_release_is_written_everywhere_or_refused(tree):
  found = release.problems_of(tree, 'someone/vit_jax', 'v97.0.0')
  assert len(found) == 8 and found[0].startswith('the tag is v97.0.0')  # six notebooks, changelog
  release.prepare(tree, 'someone/vit_jax', '97.0.0')
  assert release.problems_of(tree, 'someone/vit_jax', 'v97.0.0') == []
  assert release.version_of(tree) == '97.0.0'
  assert 'date-released' in (tree / 'CITATION.cff').read_text('utf-8')
  for name, text in release.notebooks(tree).items():
    assert f'colab.research.google.com/github/someone/vit_jax/blob/v97.0.0/colabs/{name}.' in text
  (tree / 'CITATION.cff').write_text('version: 96.0.0\n')
  assert release.problems_of(tree, 'someone/vit_jax', 'v97.0.0') == [
    'CITATION.cff is not of 97.0.0'
  ]


@pytest.mark.parametrize(
  'words, expected',
  [
    (['--check', 'someone/vit_jax@v97.0.0'], 'the tag is v97.0.0'),
    (['no_slash', '0.2.0'], "'no_slash'"),
    (['someone/vit_jax', 'two'], "'two'"),
  ],
)
def test_a_wrong_release_ends_with_a_line_and_a_status(words, expected):
  done = subprocess.run(
    [sys.executable, str(ROOT / 'release.py'), *words], capture_output=True, text=True
  )
  assert done.returncode != 0 and expected in done.stderr and 'Traceback' not in done.stderr
