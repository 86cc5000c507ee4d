"""Times training and inference of a ViT beside its peers: alternating rounds, medians, ratios.

  python benchmarks/models_against_peers.py --model=s16 --peer_python=PYTHON_WITH_TORCH_AND_TIMM \\
      --original=CHECKOUT_OF_vision_transformer

Every peer is a process of its own that lives through all rounds and computes only when it is its
turn, with the same batch of uint8 pictures, float32 and AdamW (the original: its SGD with momentum
in training, which is less work). A peer that cannot be imported is named and left out.
"""

import argparse
import pathlib
import statistics
import sys

from peer import Peer

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = {'ti16': (192, 3, 768), 's16': (384, 6, 1536), 'b16': (768, 12, 3072)}
TIMM = {'ti16': 'tiny', 's16': 'small', 'b16': 'base'}

# What each process runs: it defines train() and infer(), which return when all is computed.
_DATA = '''
import numpy as np
size, batch, (width, heads, mlp) = words
pictures = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
labels = np.arange(batch) % 1000
'''

_OURS = '''
from vit_jax import runtime
runtime.start()
import jax, jax.numpy as jnp, optax
from vit_jax import models
module = models.build(f'vit_{size}', 1000)
apply = lambda v, x, train: module.apply(v, x, train=train, rngs={'dropout': jax.random.key(0)})
tx = optax.adamw(1e-4)
'''

_ORIGINAL = '''
import jax, jax.numpy as jnp, ml_collections, optax
from vit_jax import models_vit
module = models_vit.VisionTransformer(
  num_classes=1000, patches=ml_collections.ConfigDict({'size': (16, 16)}), hidden_size=width,
  transformer=dict(num_layers=12, num_heads=heads, mlp_dim=mlp, dropout_rate=0.0,
                   attention_dropout_rate=0.0), classifier='token')
apply = lambda v, x, train: module.apply(v, x, train=train, rngs={'dropout': jax.random.key(0)})
tx = optax.sgd(1e-3, momentum=0.9)
'''

_JAX = '''
variables = jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)),
                                        train=False))()
state = tx.init(variables)
def update(v, s, x):
  def loss(v):
    logits = apply(v, x.astype(jnp.float32) / 127.5 - 1, True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  value, grads = jax.value_and_grad(loss)(v)
  updates, s = tx.update(grads, s, v)
  return optax.apply_updates(v, updates), s, value
step = jax.jit(update, donate_argnums=(0, 1))
forward = jax.jit(lambda v, x: apply(v, x.astype(jnp.float32) / 127.5 - 1, False))
def train():
  global variables, state
  variables, state, value = step(variables, state, pictures)
  jax.block_until_ready(variables)
def infer():
  forward(variables, pictures).block_until_ready()
'''

_TORCH = '''
import torch
library = torch.library.Library('torchvision', 'DEF')  # a torchvision without its operators
for op in ('nms', 'qnms'):
  try: library.define(op + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
  except RuntimeError: pass
MAKE
optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
x, y = torch.from_numpy(pictures), torch.from_numpy(labels)
def prepared(): return ((x.float() / 127.5) - 1).permute(0, 3, 1, 2)
def train():
  model.train()
  optimizer.zero_grad(set_to_none=True)
  torch.nn.functional.cross_entropy(forward(prepared()), y).backward()
  optimizer.step()
def infer():
  model.eval()
  with torch.inference_mode(): forward(prepared())
'''

_TIMM = '''import timm
model = timm.create_model(f'vit_{NAME}_patch16_224')
forward = model'''
_COMPILED = _TIMM + '\nforward = torch.compile(model)'
_HF = '''from transformers import ViTConfig, ViTForImageClassification
model = ViTForImageClassification(ViTConfig(hidden_size=width, num_attention_heads=heads,
                                            intermediate_size=mlp, num_labels=1000))
forward = lambda x: model(x).logits'''


def make_peers(args: argparse.Namespace) -> list[Peer]:
  """Those that were asked for and can be imported; ours is the first."""
  words = [args.model, args.batch_size, SIZES[args.model]]
  torch_code = {name: _TORCH.replace('MAKE', make.replace('{NAME}', TIMM[args.model]))
                for name, make in (('timm', _TIMM), ('timm_compiled', _COMPILED), ('hf', _HF))}
  code = {'vit_jax': (sys.executable, _OURS + _JAX, str(ROOT))}
  if args.original:
    code['original'] = (sys.executable, _ORIGINAL + _JAX, args.original)
  if args.peer_python:
    code |= {name: (args.peer_python, text, '') for name, text in torch_code.items()}
  wanted = [name for name in code if name == 'vit_jax' or name in args.peers.split(',')]
  peers = []
  for name in wanted:
    python, text, path = code[name]
    peers.append(Peer(name, python, _DATA + text, words, path))
  return [peer for peer in peers if peer.lives]


def main() -> None:
  """Prints pictures a second, first steps, memory and our ratio to each peer."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='s16', choices=SIZES)
  parser.add_argument('--batch_size', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--peers', default='original,timm,timm_compiled,hf')
  parser.add_argument('--peer_python', default='', help='a Python with torch, timm, transformers')
  parser.add_argument('--original', default='', help='a checkout of vision_transformer')
  args = parser.parse_args()
  peers = make_peers(args)
  first = {peer.name: {part: peer.time(part) for part in ('train', 'infer')} for peer in peers}
  seconds = {(peer.name, part): [] for peer in peers for part in ('train', 'infer')}
  for _ in range(args.rounds):
    for part in ('train', 'infer'):
      for peer in peers:
        seconds[peer.name, part].append(peer.time(part))
  for part in ('train', 'infer'):
    for peer in peers:
      times = seconds[peer.name, part]
      median = statistics.median(times)
      ratio = median / statistics.median(seconds['vit_jax', part])
      print(f'{args.model} {part:5} {peer.name:14} {args.batch_size / median:7.2f} pictures/s '
            f'(best {args.batch_size / min(times):7.2f}), first step '
            f'{first[peer.name][part]:5.1f} s, vit_jax is {ratio:.2f}x')
  for peer in peers:
    print(f'{args.model} peak memory {peer.name:14} {peer.memory:.0f} MiB')
    peer.stop()


if __name__ == '__main__':
  main()
