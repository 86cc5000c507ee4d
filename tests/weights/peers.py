"""What the comparisons with PyTorch's libraries share; they skip where those are not installed."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')

# timm imports torchvision, whose compiled operators are missing from some builds: two declarations
# are all that it needs of them.
try:
  library = torch.library.Library('torchvision', 'DEF')
  library.define('nms(Tensor a, Tensor b, float c) -> Tensor')
  library.define('qnms(Tensor a, Tensor b, float c) -> Tensor')
except RuntimeError:
  library = None  # they are there

timm = pytest.importorskip('timm')


def randomize(model, seed=0):
  """Draws every parameter of a torch model anew, so that no two tensors are alike."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if not tensor.is_floating_point():
        continue
      noise = torch.randn(tensor.shape, generator=generator)
      if name.endswith('running_var'):
        tensor.copy_(0.5 + noise.abs())
      elif tensor.ndim == 1 and name.endswith(('weight', 'gamma')):
        tensor.copy_(1 + 0.1 * noise)  # norms
      else:
        fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
        tensor.copy_(noise * (fan_in**-0.5 if tensor.ndim > 1 else 0.1))
  return model.eval()


def images(h, w, c=3, b=2, seed=1):
  return np.random.default_rng(seed).uniform(-1, 1, (b, h, w, c)).astype(np.float32)


def torch_logits(model, x):
  with torch.no_grad():
    result = model(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
  return getattr(result, 'logits', result).numpy()


def same_bytes(a, b):
  """Whether two dictionaries of arrays are equal to the last bit."""
  assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())[:5]
  return [k for k in a if a[k].shape != b[k].shape or a[k].tobytes() != b[k].tobytes()]
