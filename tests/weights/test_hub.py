"""Pretrained models by name: from a folder, the cache, or the first source that gives them."""

import numpy as np
import pytest

from tests.loopback import BODY, QUICK, files
from tests.support import raises
from tests.weights import oracle
from vit_jax import convert, models, tree
from vit_jax.errors import ConfigError, DownloadError, WeightsError
from vit_jax.models.shapes import variable_specs
from vit_jax.weights import hub, saving


def pretrained(name, *sources):
  return hub.PretrainedModel(name, 'vit_ti16', 0.1, 5, 24, 1, '', 'none', sources)


@pytest.fixture
def named(server, tmp_path, monkeypatch):
  """One pretrained model, whose first source is gone and whose second is this server's."""
  np.savez(tmp_path / 'made.npz', **oracle.official()[0])
  server.files['good.npz'] = (tmp_path / 'made.npz').read_bytes()
  entry = pretrained('small.test', 'a:x.npz', 'b:good.npz')
  monkeypatch.setattr(hub, '_PLACES', {'a': server.url + '/404/', 'b': server.url + '/'})
  monkeypatch.setattr(hub, 'pretrained_models', lambda: {'small.test': entry})
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  return server


def test_a_name_is_loaded_from_the_next_source_and_then_offline(named, tmp_path):
  first = convert.load('small.test', oracle.ours(), (24, 24))
  visits = len(named.log)
  again = convert.load('small.test', oracle.ours(), (24, 24))
  assert len(named.log) == visits  # from the cache
  np.testing.assert_array_equal(
    first['params']['head']['kernel'], again['params']['head']['kernel']
  )
  assert files(tmp_path / 'cache') == ['small.test.npz', 'small.test.npz.download.json']


def test_a_local_folder_comes_before_any_download(named, tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'x.npz').write_bytes((tmp_path / 'made.npz').read_bytes())
  convert.load('small.test', oracle.ours(), (24, 24), pretrained_dir=tmp_path / 'mine')
  assert named.log == []


def test_a_file_of_another_name_in_the_local_folder_is_given_by_that_name(named, tmp_path, caplog):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'made.npz').rename(tmp_path / 'mine' / 'ours.npz')
  convert.load('ours.npz', oracle.ours(), (24, 24), pretrained_dir=tmp_path / 'mine')
  assert named.log == [] and not caplog.records
  convert.load('small.test', oracle.ours(), (24, 24), pretrained_dir=tmp_path / 'mine')
  (warning,) = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
  for fact in (f'pretrained_dir={tmp_path / "mine"} ', 'small.test', 'x.npz, good.npz', 'own name'):
    assert fact in warning
  with raises(WeightsError, 'other.npz', f'pretrained_dir={tmp_path / "mine"}'):
    convert.read('other.npz', pretrained_dir=tmp_path / 'mine')
  with raises(ConfigError, f'pretrained_dir={tmp_path / "none"} is no folder'):
    convert.read('ours.npz', pretrained_dir=tmp_path / 'none')


def test_when_every_source_fails_the_error_names_the_remedy(named, monkeypatch):
  monkeypatch.setattr(hub, '_PLACES', {'a': named.url + '/404/', 'b': named.url + '/403/'})
  with raises(DownloadError, '404', '403', 'pretrained_dir', 'good.npz'):
    hub.fetch('small.test', retry=QUICK)


def test_a_repository_lands_whole_or_not_at_all(server, tmp_path, monkeypatch):
  entry = pretrained('small.hub', 'hf:who/what')
  monkeypatch.setattr(hub, 'pretrained_models', lambda: {'small.hub': entry})
  monkeypatch.setattr(hub, '_REPOSITORY_URL', server.url + '/{file}')
  server.files['config.json'] = b'{}'
  server.files['preprocessor_config.json'] = b'{}'
  path = hub.fetch('small.hub', cache_dir=tmp_path, retry=QUICK)
  assert (path / 'model.safetensors').read_bytes() == BODY
  monkeypatch.setattr(hub, '_REPOSITORY_URL', server.url + '/half/{file}')
  with raises(DownloadError, 'broke after'):
    hub.fetch('small.hub', cache_dir=tmp_path / 'other', retry=QUICK)
  assert files(tmp_path / 'other') == []


def test_all_files_of_a_repository_are_of_one_revision(server, tmp_path, monkeypatch, caplog):
  entry = pretrained('small.hub', 'hf:who/what')
  monkeypatch.setattr(hub, 'pretrained_models', lambda: {'small.hub': entry})
  monkeypatch.setattr(hub, '_REPOSITORY_URL', server.url + '/{file}?{revision}')
  server.files['config.json?main'] = server.files['preprocessor_config.json?c0ffee'] = b'{}'
  server.extra_headers = {'X-Repo-Commit': 'c0ffee'}
  path = hub.fetch('small.hub', cache_dir=tmp_path, retry=QUICK)
  asked = [name for name, _ in server.log]
  assert [name.split('?')[1] for name in asked] == ['main', 'c0ffee', 'c0ffee']
  assert hub.fetch('small.hub', cache_dir=tmp_path, retry=QUICK) == path and not caplog.text
  (path / 'config.json').write_text('{"a": 1}')
  hub.fetch('small.hub', cache_dir=tmp_path, retry=QUICK)
  assert 'config.json changed' in caplog.text


def test_every_pretrained_model_has_a_model_and_known_places():
  assert len(hub.pretrained_models()) > 100
  for entry in hub.pretrained_models().values():
    assert entry.model in models.names(), entry.name
    assert entry.sources, entry.name
    for source in entry.sources:
      assert source.split(':')[0] in {*hub._PLACES, *hub._REPOSITORY_FILES}, source
      assert hub._local_name(entry, source)
  text = hub.table()
  assert 'vit_b16.augreg_i21k_i1k_384' in text and '85.49%' in text
  with raises(ConfigError, 'did you mean', 'vit_b16.i21k'):
    convert.read('vit_b16.i21')


def test_what_arrays_do_not_show_follows_from_the_name(tmp_path):
  module = models.build('t2t_vit_7', 5, depth=1)
  variables = tree.unflatten(oracle.scattered_specs(variable_specs(module, (224, 224))))
  tensors = saving.to_tensors(variables, module, 'timm', (224, 224))
  np.savez(tmp_path / 't2t_vit_7.i1k.npz', **tensors)
  named = convert.read('t2t_vit_7.i1k', pretrained_dir=tmp_path)
  assert named.model['query_scale'] == 256**-0.5
  assert named.preprocess.transform.startswith('decode|resize_small(248')  # 224 / 0.9
  assert 'query_scale' not in convert.read(tmp_path / 't2t_vit_7.i1k.npz').model
