"""'vit_jax': our own names in one .safetensors file, with everything that is needed to use it."""

from collections.abc import Collection

from vit_jax.weights.formats.base import OWN_NAMES, Format, register


@register
class Own(Format):
  """Names as in the variables; they differ from big_vision's in those of the modules."""

  name = naming = OWN_NAMES
  container = 'safetensors'
  ending = '.safetensors'

  def recognises(self, names: Collection[str]) -> bool:
    return all(name.startswith(('params/', 'batch_stats/')) for name in names) and not any(
      'encoderblock' in name or name.startswith('params/embedding/') for name in names
    )
