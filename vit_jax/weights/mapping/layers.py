"""Rules of the layers that families share, as Flax's and PyTorch's files name their arrays."""

from vit_jax.weights.mapping.rules import Rule

CONV = 'o i h w -> h w i o'  # a torch Conv2d's kernel
SPLIT_HEADS = '(h k) d -> d h k'  # a torch Linear whose outputs are the heads of an attention
MERGE_HEADS = 'd (h k) -> h k d'  # a torch Linear whose inputs are


def norm(theirs: str, ours: str, scale: str = 'scale') -> list[Rule]:
  """A LayerNorm or GroupNorm; `scale` is the foreign word ('weight' in torch)."""
  separator = '.' if scale == 'weight' else '/'
  return [
    Rule(f'{theirs}{separator}{scale}', f'{ours}/scale'),
    Rule(f'{theirs}{separator}bias', f'{ours}/bias'),
  ]


def torch_batch_norm(theirs: str, ours: str) -> list[Rule]:
  """A torch BatchNorm."""
  words = ('weight', 'bias', 'running_mean', 'running_var')
  return _batch_norm([f'{theirs}.{word}' for word in words], ours)


def keras_batch_norm(theirs: str, ours: str) -> list[Rule]:
  """A Keras BatchNormalization."""
  words = ('gamma', 'beta', 'moving_mean', 'moving_variance')
  return _batch_norm([f'{theirs}/{word}' for word in words], ours)


def _batch_norm(theirs: list[str], ours: str) -> list[Rule]:
  scale, bias, mean, variance = theirs
  return [
    Rule(scale, f'{ours}/scale'),
    Rule(bias, f'{ours}/bias'),
    Rule(mean, f'{ours}/mean', collection='batch_stats'),
    Rule(variance, f'{ours}/var', collection='batch_stats'),
  ]


def flax_dense(theirs: str, ours: str, role: str = '') -> list[Rule]:
  """A layer with Flax's own arrays on both sides."""
  return [
    Rule(f'{theirs}/kernel', f'{ours}/kernel', role=role),
    Rule(f'{theirs}/bias', f'{ours}/bias', role=role),
  ]


def torch_linear(theirs: str, ours: str, axes: str = 'o i -> i o', role: str = '') -> list[Rule]:
  """A torch Linear; its weight is [out, in]."""
  return [
    Rule(f'{theirs}.weight', f'{ours}/kernel', axes, role),
    Rule(f'{theirs}.bias', f'{ours}/bias', role=role),
  ]


def torch_split_heads(theirs: str, ours: str) -> list[Rule]:
  """A torch Linear whose outputs are divided among heads."""
  return [
    Rule(f'{theirs}.weight', f'{ours}/kernel', SPLIT_HEADS),
    Rule(f'{theirs}.bias', f'{ours}/bias', '(h k) -> h k'),
  ]


def torch_patches(theirs: str) -> list[Rule]:
  """A torch Conv2d that cuts images into patches."""
  return [
    Rule(f'{theirs}.weight', 'patch_embedding/kernel', CONV, role='patch'),
    Rule(f'{theirs}.bias', 'patch_embedding/bias'),
  ]


def torch_block(theirs: str, ours: str) -> list[Rule]:
  """A transformer block as timm and the torch code of most papers name it."""
  return [
    *norm(f'{theirs}.norm1', f'{ours}/norm1', 'weight'),
    Rule(f'{theirs}.attn.qkv.weight', f'{ours}/attention/qkv/kernel', '(s h k) d -> d s h k'),
    Rule(f'{theirs}.attn.qkv.bias', f'{ours}/attention/qkv/bias', '(s h k) -> s h k'),
    *norm(f'{theirs}.attn.q_norm', f'{ours}/attention/query_norm', 'weight'),
    *norm(f'{theirs}.attn.k_norm', f'{ours}/attention/key_norm', 'weight'),
    *torch_linear(f'{theirs}.attn.proj', f'{ours}/attention/out', MERGE_HEADS),
    Rule(f'{theirs}.ls1.gamma', f'{ours}/scale1/gamma'),
    *norm(f'{theirs}.norm2', f'{ours}/norm2', 'weight'),
    *torch_linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/fc1'),
    *torch_linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/fc2'),
    Rule(f'{theirs}.ls2.gamma', f'{ours}/scale2/gamma'),
  ]


def flax_block(theirs: str, ours: str, numbers: tuple[int, int, int]) -> list[Rule]:
  """A transformer block of Google's Flax code, whose three projections are apart.

  Args:
    theirs, ours: beginnings of names.
    numbers: of attention, second norm and MLP in their names.
  """
  of_attention, of_norm, of_mlp = numbers
  attention = f'{theirs}/MultiHeadDotProductAttention_{of_attention}'
  mlp = f'{theirs}/MlpBlock_{of_mlp}'
  parts = ('query', 'key', 'value')
  return [
    *norm(f'{theirs}/LayerNorm_0', f'{ours}/norm1'),
    Rule(
      tuple(f'{attention}/{part}/kernel' for part in parts),
      f'{ours}/attention/qkv/kernel',
      's d h k -> d s h k',
    ),
    Rule(
      tuple(f'{attention}/{part}/bias' for part in parts),
      f'{ours}/attention/qkv/bias',
      's h k -> s h k',
    ),
    *flax_dense(f'{attention}/out', f'{ours}/attention/out'),
    *norm(f'{theirs}/LayerNorm_{of_norm}', f'{ours}/norm2'),
    *flax_dense(f'{mlp}/Dense_0', f'{ours}/mlp/fc1'),
    *flax_dense(f'{mlp}/Dense_1', f'{ours}/mlp/fc2'),
  ]


def flax_renames(numbers: tuple[int, int, int]) -> tuple[tuple[str, str], ...]:
  """Renames that bring files from before Linen, and of it, to these numbers of `flax_block`."""
  layers = zip(('MultiHeadDotProductAttention', 'LayerNorm', 'MlpBlock'), ('01', '12', '03'))
  block, units = r'(encoderblock(?:_\d+)?/', (r'(block\d+/unit)0(\d)/', r'\1\2/')
  renames = [
    (rf'{block}{layer}_)[{either}]/', rf'\g<1>{n}/') for (layer, either), n in zip(layers, numbers)
  ]
  return (*renames, units)


def hf_block(theirs: str, ours: str) -> list[Rule]:
  """A transformer block of Hugging Face's code."""
  attention = f'{theirs}.attention.attention'
  parts = ('query', 'key', 'value')
  return [
    *norm(f'{theirs}.layernorm_before', f'{ours}/norm1', 'weight'),
    Rule(
      tuple(f'{attention}.{part}.weight' for part in parts),
      f'{ours}/attention/qkv/kernel',
      's (h k) d -> d s h k',
    ),
    Rule(
      tuple(f'{attention}.{part}.bias' for part in parts),
      f'{ours}/attention/qkv/bias',
      's (h k) -> s h k',
    ),
    *torch_linear(f'{theirs}.attention.output.dense', f'{ours}/attention/out', MERGE_HEADS),
    *norm(f'{theirs}.layernorm_after', f'{ours}/norm2', 'weight'),
    *torch_linear(f'{theirs}.intermediate.dense', f'{ours}/mlp/fc1'),
    *torch_linear(f'{theirs}.output.dense', f'{ours}/mlp/fc2'),
  ]


def flax_attention_pool(theirs: str, ours: str) -> list[Rule]:
  """Attention pooling of big_vision."""
  attention = f'{theirs}/MultiHeadDotProductAttention_0'
  return [
    Rule(f'{theirs}/probe', f'{ours}/probe'),
    *(
      rule
      for part in ('query', 'key', 'value', 'out')
      for rule in flax_dense(f'{attention}/{part}', f'{ours}/attention/{part}')
    ),
    *norm(f'{theirs}/LayerNorm_0', f'{ours}/norm'),
    *flax_dense(f'{theirs}/MlpBlock_0/Dense_0', f'{ours}/mlp/fc1'),
    *flax_dense(f'{theirs}/MlpBlock_0/Dense_1', f'{ours}/mlp/fc2'),
  ]


def timm_attention_pool(theirs: str, ours: str) -> list[Rule]:
  """Attention pooling of timm."""
  key, value = f'{ours}/attention/key', f'{ours}/attention/value'
  return [
    Rule(f'{theirs}.latent', f'{ours}/probe'),
    Rule(f'{theirs}.q.weight', f'{ours}/attention/query/kernel', SPLIT_HEADS),
    Rule(f'{theirs}.q.bias', f'{ours}/attention/query/bias', '(h k) -> h k'),
    Rule(f'{theirs}.kv.weight', (f'{key}/kernel', f'{value}/kernel'), '(s h k) d -> s d h k'),
    Rule(f'{theirs}.kv.bias', (f'{key}/bias', f'{value}/bias'), '(s h k) -> s h k'),
    *torch_linear(f'{theirs}.proj', f'{ours}/attention/out', MERGE_HEADS),
    *norm(f'{theirs}.norm', f'{ours}/norm', 'weight'),
    *torch_linear(f'{theirs}.mlp.fc1', f'{ours}/mlp/fc1'),
    *torch_linear(f'{theirs}.mlp.fc2', f'{ours}/mlp/fc2'),
  ]
