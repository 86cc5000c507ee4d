"""From a model's variables to a file of any format, with what is needed to use it there."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax import tree
from vit_jax.data import Preprocess
from vit_jax.errors import UserError, did_you_mean
from vit_jax.models import posemb
from vit_jax.weights import preprocessing, resize
from vit_jax.weights.formats import hdf5, npz, safetensors
from vit_jax.weights.mapping import architectures, rules, tables


def to_tensors(
  variables: Mapping[str, Any], module: Any, format: str, image_size: tuple[int, int]
) -> dict[str, np.ndarray]:
  """The tensors of a format, under its names.

  Args:
    variables: {'params': ..., 'batch_stats': ...}.
    module: the model that they belong to.
    format: one of `tables.FORMATS`.
    image_size: (h, w) in pixels, of the position embeddings.

  Raises:
    UserError: the model has what the format cannot hold.
  """
  flat = {k: np.asarray(v) for k, v in tree.flatten(variables).items()}
  if format == 'vit_jax':
    return flat
  family = type(module).__name__
  if family == 'ViT' and format in ('timm', 'hf', 'npz'):
    flat |= _computed_positions(module, image_size)
  table = tables.find(family, format, flat)
  problems = tables.unfit(family, format, module)
  bindings, orphans = rules.bind(table.rules, flat)
  if orphans:
    problems.append(f'the {format} format has no place for {", ".join(orphans[:4])}')
  if problems:
    raise UserError(problems)
  if not table.class_slot and 'params/class_token' in flat:
    position = flat.get('params/position_embedding')
    if position is not None:
      grid = [n // p for n, p in zip(image_size, module.patch_size)]
      slots = position.shape[1] - grid[0] * grid[1]
      flat['params/class_token'], flat['params/position_embedding'] = resize.fold_class_slot(
        flat['params/class_token'], position, slots
      )
  result: dict[str, np.ndarray] = {}
  for binding in bindings:
    arrays = binding.to_theirs([flat[n] for n in binding.ours])
    result.update(zip(binding.theirs, arrays))
  if family == 'T2TViT':
    # The authors' state dicts keep the fixed embeddings too, and their loader asks for them.
    h, w = (n // p for n, p in zip(image_size, module.patch_size))
    result['pos_embed'] = posemb.sinusoid_1d(h * w + 1, module.width)
  return result


def _computed_positions(module: Any, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
  """Fixed position embeddings as the learned ones that other formats have."""
  h, w = (n // p for n, p in zip(image_size, module.patch_size))
  slots = module.num_prefix_tokens - module.num_registers if module.position_for_class_token else 0
  if module.position_embedding == 'sincos_2d':
    grid = posemb.sincos_2d(h, w, module.width)
    x = np.concatenate([np.zeros((1, slots, module.width), np.float32), grid], axis=1)
  elif module.position_embedding == 'sinusoid_1d':
    x = posemb.sinusoid_1d(slots + h * w, module.width)
  else:
    return {}
  return {'params/position_embedding': x}


def write(
  target: str | pathlib.Path,
  variables: Mapping[str, Any],
  module: Any,
  format: str,
  *,
  model: Mapping[str, Any],
  classes: Sequence[str] = (),
  preprocess: Preprocess,
  config: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
  """Writes weights with their class names and preprocessing.

  Args:
    target: a file; a folder for 'hf', and for 'timm' where it does not end in .safetensors.
    variables: {'params': ..., 'batch_stats': ...}.
    module: the model that they belong to.
    format: one of `tables.FORMATS`.
    model: {'name': ..., field: value} that builds the module.
    classes: names in order.
    preprocess: how pictures become input.
    config: more options of the run that made the weights.

  Returns:
    The files written.

  Raises:
    UserError: the format cannot hold this, or the target cannot be written.
  """
  if format not in tables.FORMATS:
    raise UserError(f'unknown format {format!r}: {did_you_mean(format, tables.FORMATS)}')
  target = pathlib.Path(target)
  image_size = preprocess.image_size
  tensors = to_tensors(variables, module, format, image_size)
  record = {
    'format': format,
    'config': {**(config or {}), 'model': dict(model)},
    'num_classes': module.num_classes,
    'classes': list(classes),
    'preprocess': preprocess.to_json(),
  }
  if hasattr(module, 'patch_size'):
    record['grid'] = [n // p for n, p in zip(image_size, module.patch_size)]
  metadata = {'format': 'pt', 'vit_jax': json.dumps(record)}
  if format in ('npz', 'big_vision'):
    npz.write(target, tensors)
    _write_json(target.with_name(target.name + '.json'), record)
    return [target, target.with_name(target.name + '.json')]
  if format == 'vit_jax' or (format == 'timm' and target.suffix == '.safetensors'):
    safetensors.write(target, tensors, metadata)
    return [target]
  if format == 'keras':
    hdf5.write(target, tensors)
    _write_json(target.with_name(target.name + '.json'), record)
    return [target, target.with_name(target.name + '.json')]
  if format == 'timm':
    files = {'config.json': _timm_config(module, model, classes, preprocess)}
  else:
    files = _hugging_face_configs(module, classes, preprocess)
  try:
    target.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise UserError(f'cannot make the folder {target}: {e.strerror or e}') from e
  safetensors.write(target / 'model.safetensors', tensors, metadata)
  for name, content in files.items():
    _write_json(target / name, content)
  return [target / 'model.safetensors', *(target / name for name in files)]


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  try:
    path.write_text(json.dumps(content, indent=2) + '\n')
  except OSError as e:
    raise UserError(f'cannot write {path}: {e.strerror or e}') from e


def _timm_config(
  module: Any, model: Mapping[str, Any], classes: Sequence[str], preprocess: Preprocess
) -> dict[str, Any]:
  name, arguments = architectures.timm_model(module, str(model['name']), preprocess.image_size)
  record = preprocessing.to_timm(preprocess)
  return {
    'architecture': name,
    'num_classes': module.num_classes,
    'model_args': arguments,
    'pretrained_cfg': {**record, 'num_classes': module.num_classes},
    **({'label_names': list(classes)} if classes else {}),
  }


def _hugging_face_configs(
  module: Any, classes: Sequence[str], preprocess: Preprocess
) -> dict[str, dict[str, Any]]:
  h, w = preprocess.image_size
  tower = 'DeiT' if module.distilled else 'ViT'
  head = 'ForImageClassification' + ('WithTeacher' if module.distilled else '')
  names = list(classes) or [f'LABEL_{i}' for i in range(module.num_classes)]
  config = {
    'architectures': [tower + (head if module.num_classes else 'Model')],
    'model_type': tower.lower(),
    'hidden_size': module.width,
    'num_hidden_layers': module.depth,
    'num_attention_heads': module.num_heads,
    'intermediate_size': module.mlp_dim,
    'hidden_act': 'gelu' if module.gelu == 'exact' else 'gelu_pytorch_tanh',
    'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0,
    'layer_norm_eps': module.norm_epsilon,
    'image_size': h if h == w else [h, w],
    'patch_size': module.patch_size[0],
    'num_channels': 1 if preprocess.channels == 'grey' else 3,
    'qkv_bias': module.qkv_bias,
    'pooler_act': 'tanh',
    'pooler_output_size': module.representation_size or module.width,
    'id2label': {str(i): name for i, name in enumerate(names)},
    'label2id': {name: i for i, name in enumerate(names)},
    'torch_dtype': 'float32',
  }
  return {
    'config.json': config,
    'preprocessor_config.json': preprocessing.to_hugging_face(preprocess),
  }
