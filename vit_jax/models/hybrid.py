"""Hybrids: a ResNet's feature map instead of pixels under the transformer's patches."""

from vit_jax.models.base import register
from vit_jax.models.vit import SIZES, ViT

# ViT (2010.11929) section 3.1 and table 6, AugReg (2106.10270) table 2. `patch_size` counts input
# pixels per token. R+Ti/16 has the root alone (stride 4) and 8x8 patches on it: 32 pixels a token,
# whatever its name says. R50+B/16 and R50+L/16 move the units of the fourth stage to the third.
HYBRIDS = {
  'r_ti16': ('ti', 32, ()),
  'r26_s32': ('s', 32, (2, 2, 2, 2)),
  'r26_b32': ('b', 32, (2, 2, 2, 2)),
  'r50_b16': ('b', 16, (3, 4, 9)),
  'r50_l16': ('l', 16, (3, 4, 9)),
  'r50_l32': ('l', 32, (3, 4, 6, 3)),
}

for _name, (_size, _patch, _blocks) in HYBRIDS.items():
  register(_name, ViT, **SIZES[_size], patch_size=(_patch, _patch), stem_blocks=_blocks)
