"""What a format cannot say about a model, although every tensor has a place in it."""

from typing import Any


def vit(format: str, module: Any) -> list[str]:
  """Problems of writing a ViT, hybrid or DeiT.

  Args:
    format: one of `tables.FORMATS`.
    module: the model.
  """
  problems = []
  if module.position_embedding == 'none' and format in ('timm', 'hf', 'npz'):
    problems.append(f'the {format} format has position embeddings, this model has none')
  if format == 'hf' and module.pool != 'token':
    problems.append(f"the hf format knows pool='token' alone, this model has {module.pool!r}")
  if format == 'hf' and module.patch_size[0] != module.patch_size[1]:
    problems.append('the hf format knows square patches alone')
  if module.representation_size is not None and (
    format == 'timm' or (format == 'hf' and module.num_classes)
  ):
    problems.append(
      f"the {format} format has no pre-logits layer before a head; head='reset' drops both"
    )
  return problems
