"""Times a ViT beside the original code and Hugging Face's: alternating rounds, medians, ratios.

  python benchmarks/models_against_peers.py --model=vit_s16 --peer_python=PYTHON_WITH_TORCH \\
      --original=CHECKOUT_OF_vision_transformer

`python -m vit_jax.bench MODEL --compare=timm` does the same beside timm, for every model that timm
has; see there for how. The original trains with its SGD with momentum, which is less work.
"""

import argparse
import pathlib
import sys

from vit_jax.benchmark import side_by_side

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Width, depth, heads, hidden units and patch of plain ViTs.
MODELS = {
  'vit_ti16': (192, 12, 3, 768, 16),
  'vit_s16': (384, 12, 6, 1536, 16),
  'vit_b16': (768, 12, 12, 3072, 16),
  'vit_l16': (1024, 24, 16, 4096, 16),
  'vit_h14': (1280, 32, 16, 5120, 14),
}

_SIZES = """
width, depth, heads, mlp, patch = words['sizes']
"""

_ORIGINAL = """
import jax, jax.numpy as jnp, ml_collections, optax
from vit_jax import models_vit
module = models_vit.VisionTransformer(
  num_classes=1000, patches=ml_collections.ConfigDict({'size': (patch, patch)}), hidden_size=width,
  transformer=dict(num_layers=depth, num_heads=heads, mlp_dim=mlp, dropout_rate=0.0,
                   attention_dropout_rate=0.0), classifier='token')
tx = optax.sgd(1e-3, momentum=0.9)
params = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)),
                                     train=False))()['params']
state = tx.init(params)
def apply(p, x, train):
  x = x.astype(jnp.float32) / 127.5 - 1
  return module.apply({'params': p}, x, train=train, rngs={'dropout': jax.random.key(0)})
def update(p, s, x):
  def loss(p):
    logits = apply(p, x, True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  updates, s = tx.update(jax.grad(loss)(p), s, p)
  return optax.apply_updates(p, updates), s
step = jax.jit(update, donate_argnums=(0, 1))
forward = jax.jit(lambda p, x: apply(p, x, False))
x = jax.device_put(images)
def train():
  global params, state
  params, state = jax.block_until_ready(step(params, state, x))
def infer():
  forward(params, x).block_until_ready()
"""

_HF = """from transformers import ViTConfig, ViTForImageClassification
model = ViTForImageClassification(ViTConfig(
  hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=mlp,
  patch_size=patch, num_labels=1000)).to(device)
forward = lambda x: model(x).logits"""


def main() -> None:
  """Prints images/s, first steps, memory and our ratio to each peer."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='vit_s16', choices=MODELS)
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  parser.add_argument('--batch_size', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--peer_python', default='', help='a Python with torch and transformers')
  parser.add_argument('--original', default='', help='a checkout of vision_transformer')
  args = parser.parse_args()
  codes = {'vit_jax': (sys.executable, side_by_side.OURS, str(ROOT))}
  if args.original:
    codes['original'] = (sys.executable, _SIZES + _ORIGINAL, args.original)
  if args.peer_python:
    hf = side_by_side.TORCH.replace('MAKE', _HF)
    codes['hf'] = (args.peer_python, _SIZES + hf, '')
  words = {
    'batch': args.batch_size,
    'size': 224,
    'classes': 1000,
    'dtype': args.dtype,
    'model': args.model,
    'fields': {'dtype': args.dtype},
    'sizes': MODELS[args.model],
  }
  print(side_by_side.table(side_by_side.time_in_turns(codes, words, args.rounds)))


if __name__ == '__main__':
  main()
