"""DeiT and DeiT III: Vision Transformers trained without more data, by fields of ViT."""

from vit_jax.models.base import register
from vit_jax.models.vit import SIZES, ViT

# PyTorch's exact GELU, as the published weights were trained.
for _suffix, _distilled in (('', False), ('_distilled', True)):
  for _size in ('ti', 's', 'b'):  # Touvron et al. 2021 (2012.12877), table 1
    register(f'deit_{_size}16{_suffix}', ViT, **SIZES[_size], distilled=_distilled, gelu='exact')

# Touvron et al. 2022 (2204.07118), table 1; LayerScale as in the released code.
_MEDIUM = {'width': 512, 'depth': 12, 'num_heads': 8, 'mlp_dim': 2048}
for _size, _patch in (('s', 16), ('m', 16), ('b', 16), ('l', 16), ('h', 14)):
  register(
    f'deit3_{_size}{_patch}',
    ViT,
    **SIZES.get(_size, _MEDIUM),
    patch_size=(_patch, _patch),
    position_for_class_token=False,
    layer_scale=1e-6,
    drop_path_schedule='constant',
    gelu='exact',
  )
