"""Times training and inference of a model beside its peers: alternating rounds, medians, ratios.

  python benchmarks/models_against_peers.py --model=s16 --peer_python=PYTHON_WITH_TORCH_AND_TIMM \\
      --original=CHECKOUT_OF_vision_transformer
  python benchmarks/models_against_peers.py --model=b16 --dtype=bfloat16 --batch_size=128 \\
      --peers=timm,timm_compiled --peer_python=...

Every peer is a process of its own that lives through all rounds and computes only when it is its
turn, with the same batch of uint8 images, the same precision and AdamW (the original: float32 and
its SGD with momentum in training, which is less work). PyTorch's peers take a GPU where there is
one, as JAX does; on one, tell JAX to leave them memory: XLA_PYTHON_CLIENT_PREALLOCATE=false. A peer
that cannot be imported, or does not know the model, is named and left out.
"""

import argparse
import pathlib
import statistics
import sys

from peer import Peer, alternate

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Our name, timm's, and for plain ViTs width, depth, heads, hidden units and patch.
MODELS = {
  'ti16': ('vit_ti16', 'vit_tiny_patch16_224', (192, 12, 3, 768, 16)),
  's16': ('vit_s16', 'vit_small_patch16_224', (384, 12, 6, 1536, 16)),
  'b16': ('vit_b16', 'vit_base_patch16_224', (768, 12, 12, 3072, 16)),
  'l16': ('vit_l16', 'vit_large_patch16_224', (1024, 24, 16, 4096, 16)),
  'h14': ('vit_h14', 'vit_huge_patch14_224', (1280, 32, 16, 5120, 14)),
  'r50_l32': ('r50_l32', 'vit_large_r50_s32_224', None),
  'cait_s24': ('cait_s24', 'cait_s24_224', None),
  'resnet50': ('resnet50', 'resnet50', None),
}

# What each process runs: it defines train() and infer(), which return when all is computed.
_DATA = """
import numpy as np
our_name, timm_name, sizes, batch, dtype = words
if sizes: width, depth, heads, mlp, patch = sizes
images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
labels = np.arange(batch) % 1000
"""

_OURS = """
from vit_jax import runtime
runtime.start()
import jax, jax.numpy as jnp, optax
from vit_jax import models
module = models.build(our_name, 1000, dtype=dtype)
tx = optax.adamw(1e-4)
"""

_ORIGINAL = """
import jax, jax.numpy as jnp, ml_collections, optax
from vit_jax import models_vit
module = models_vit.VisionTransformer(
  num_classes=1000, patches=ml_collections.ConfigDict({'size': (patch, patch)}), hidden_size=width,
  transformer=dict(num_layers=depth, num_heads=heads, mlp_dim=mlp, dropout_rate=0.0,
                   attention_dropout_rate=0.0), classifier='token')
tx = optax.sgd(1e-3, momentum=0.9)
"""

_JAX = """
variables = dict(jax.jit(lambda: module.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)),
                                             train=False))())
params = variables.pop('params')  # what is left are batch statistics
state = tx.init(params)
def apply(p, rest, x, train):
  x = x.astype(jnp.float32) / 127.5 - 1
  return module.apply({'params': p, **rest}, x, train=train, rngs={'dropout': jax.random.key(0)},
                      mutable=list(rest))
def update(p, rest, s, x):
  def loss(p):
    logits, new = apply(p, rest, x, True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new
  grads, rest = jax.grad(loss, has_aux=True)(p)
  updates, s = tx.update(grads, s, p)
  return optax.apply_updates(p, updates), rest, s
step = jax.jit(update, donate_argnums=(0, 1, 2))
forward = jax.jit(lambda p, rest, x: apply(p, rest, x, False)[0])
x = jax.device_put(images)
def train():
  global params, variables, state
  params, variables, state = jax.block_until_ready(step(params, variables, state, x))
def infer():
  forward(params, variables, x).block_until_ready()
"""

_TORCH = """
import torch
library = torch.library.Library('torchvision', 'DEF')  # a torchvision without its operators
for op in ('nms', 'qnms'):
  try: library.define(op + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
  except RuntimeError: pass
on_gpu = torch.cuda.is_available()
device = 'cuda' if on_gpu else 'cpu'
MAKE
optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=on_gpu)
x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
def logits():
  with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16'):
    return forward(((x.float() / 127.5) - 1).permute(0, 3, 1, 2)).float()
def finish():
  if on_gpu: torch.cuda.synchronize()
def train():
  model.train()
  optimizer.zero_grad(set_to_none=True)
  torch.nn.functional.cross_entropy(logits(), y).backward()
  optimizer.step()
  finish()
def infer():
  model.eval()
  with torch.inference_mode(): logits()
  finish()
"""

_TIMM = """import timm
model = timm.create_model(timm_name).to(device)
forward = model"""
_COMPILED = _TIMM + '\nforward = torch.compile(model)'
_HF = """from transformers import ViTConfig, ViTForImageClassification
model = ViTForImageClassification(ViTConfig(
  hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=mlp,
  patch_size=patch, num_labels=1000)).to(device)
forward = lambda x: model(x).logits"""


def make_peers(args: argparse.Namespace) -> list[Peer]:
  """Those that were asked for, know the model and can be imported; ours is the first."""
  words = [*MODELS[args.model], args.batch_size, args.dtype]
  torch_code = {
    name: _TORCH.replace('MAKE', make)
    for name, make in (('timm', _TIMM), ('timm_compiled', _COMPILED), ('hf', _HF))
  }
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
  """Prints images/s, first steps, memory and our ratio to each peer."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='s16', choices=MODELS)
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  parser.add_argument('--batch_size', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--peers', default='original,timm,timm_compiled,hf')
  parser.add_argument('--peer_python', default='', help='a Python with torch, timm, transformers')
  parser.add_argument('--original', default='', help='a checkout of vision_transformer')
  args = parser.parse_args()
  peers = make_peers(args)
  first = {peer.name: {part: peer.time(part) for part in ('train', 'infer')} for peer in peers}
  jobs = [(peer, part) for part in ('train', 'infer') for peer in peers]
  seconds = alternate(jobs, args.rounds)
  for part in ('train', 'infer'):
    for peer in peers:
      times = seconds[peer.name, part]
      median = statistics.median(times)
      ratio = median / statistics.median(seconds['vit_jax', part])
      print(
        f'{args.model} {part:5} {peer.name:14} {args.batch_size / median:7.2f} images/s '
        f'(best {args.batch_size / min(times):7.2f}), first step '
        f'{first[peer.name][part]:5.1f} s, vit_jax is {ratio:.2f}x'
      )
  for peer in peers:
    print(f'{args.model} peak memory {peer.name:14} {peer.memory:.0f} MiB')
    peer.stop()


if __name__ == '__main__':
  main()
