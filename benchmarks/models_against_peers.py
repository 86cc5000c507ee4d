"""Times training and inference of a ViT beside its peers: alternating rounds, medians, ratios.

  python benchmarks/models_against_peers.py --model=s16 --peer_python=PYTHON_WITH_TORCH_AND_TIMM \\
      --original=CHECKOUT_OF_vision_transformer

Every peer is a process of its own that lives through all rounds and computes only when it is its
turn, with the same batch of uint8 pictures, float32 and AdamW (the original: its SGD with momentum
in training, which is less work). A peer that cannot be imported is named and left out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SIZES = {'ti16': (192, 3, 768), 's16': (384, 6, 1536), 'b16': (768, 12, 3072)}
TIMM = {'ti16': 'tiny', 's16': 'small', 'b16': 'base'}

# What each process runs: it defines train() and infer(), which return when all is computed.
_DATA = '''
import json, resource, sys, time
import numpy as np
size, batch, (width, heads, mlp) = json.loads(sys.argv[1])
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

_SERVE = '''
print('ready', flush=True)
for line in sys.stdin:
  began = time.perf_counter()
  {'train': train, 'infer': infer}[line.strip()]()
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps([time.perf_counter() - began, memory]), flush=True)
'''


class Peer:
  """A process that computes a step when it is told to."""

  def __init__(self, name: str, python: str, code: str, words: list, path: str):
    self.name, self.seconds, self.memory = name, {'train': [], 'infer': []}, 0.0
    environment = {**os.environ, 'PYTHONPATH': path}
    self._process = subprocess.Popen(
      [python, '-c', _DATA + code + _SERVE, json.dumps(words)], env=environment, text=True,
      cwd=path or '/',  # which Python searches first
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    self.lives = self._process.stdout.readline().strip() == 'ready'
    if not self.lives:
      print(f'{name} is left out: {self._process.stderr.read().strip().splitlines()[-1]}')

  def time(self, part: str) -> float:
    """Seconds of one step."""
    print(part, file=self._process.stdin, flush=True)
    answer = self._process.stdout.readline()
    if not answer:
      raise SystemExit(f'{self.name}: {self._process.stderr.read()[-800:]}')
    seconds, self.memory = json.loads(answer)
    return seconds

  def stop(self) -> None:
    self._process.stdin.close()
    self._process.wait(30)


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
  peers = [Peer(name, code[name][0], code[name][1], words, code[name][2]) for name in wanted]
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
  for _ in range(args.rounds):
    for part in ('train', 'infer'):
      for peer in peers:
        peer.seconds[part].append(peer.time(part))
  ours = peers[0]
  for part in ('train', 'infer'):
    for peer in peers:
      median = statistics.median(peer.seconds[part])
      ratio = median / statistics.median(ours.seconds[part])
      print(f'{args.model} {part:5} {peer.name:14} {args.batch_size / median:7.2f} pictures/s '
            f'(best {args.batch_size / min(peer.seconds[part]):7.2f}), first step '
            f'{first[peer.name][part]:5.1f} s, vit_jax is {ratio:.2f}x')
  for peer in peers:
    print(f'{args.model} peak memory {peer.name:14} {peer.memory:.0f} MiB')
    peer.stop()


if __name__ == '__main__':
  main()
