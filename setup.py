"""Packaging of vit_jax; tested versions are in constraints.txt."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'vit_jax/__init__.py').read_text('utf-8'))[1]

setuptools.setup(
  name='vit_jax',
  version=VERSION,
  description='Vision Transformers in JAX/Flax: train, fine-tune, evaluate, convert and explain',
  long_description=(ROOT / 'README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  packages=setuptools.find_packages(include=['vit_jax', 'vit_jax.*']),
  package_data={
    'vit_jax': ['py.typed'],
    'vit_jax.data': ['*.txt'],
    'vit_jax.report': ['templates/*'],
    'vit_jax.weights': ['*.csv'],
  },
  entry_points={'console_scripts': ['vit_jax = vit_jax.__main__:run']},
  python_requires='>=3.11',
  install_requires=[
    'jax>=0.10.2,<0.11',
    'flax>=0.12.8,<0.13',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'tensorflow-datasets>=4.9.10,<5',
    'ml-collections>=1.1,<2',
    'clu>=0.0.12,<0.1',
    'grain>=0.2.18,<0.3',
    'array_record>=0.8,<0.9',
    'numpy>=2.2,<3',
    'scipy>=1.15,<2',
    'einops>=0.8.1,<0.9',
    'scikit-learn>=1.7,<2',
    'pillow>=12,<14',
    'simplejpeg>=1.8,<2',
    'cykooz-resizer>=4.0.1,<5',
    'PyYAML>=6,<7',
    'Jinja2>=3.1.6,<4',
    'tensorboardX>=2.6,<3',
    'tqdm>=4.67,<5',
  ],
  extras_require={
    'gpu': ['jax[cuda13]>=0.10.2,<0.11'],
    'tpu': ['jax[tpu]>=0.10.2,<0.11'],
    'figures': ['matplotlib>=3.10,<4'],
    'keras': ['h5py>=3.14,<4'],
    'wandb': ['wandb>=0.31,<1'],
    'mlflow': ['mlflow>=3,<4'],
    'trackio': ['trackio>=0.43,<1'],
    'aim': ['aim>=3.29,<4'],
    'tfds': ['tensorflow-cpu>=2.20,<3'],
    'test': [
      'matplotlib>=3.10,<4',
      'h5py>=3.14,<4',
      'safetensors>=0.7,<1',
      'pytest>=9,<10',
      'pytest-xdist>=3.8,<4',
      'mypy>=2.4,<3',
      'types-PyYAML>=6',
      'ruff>=0.17,<0.18',
      'nbclient>=0.11,<0.12',
      'ipykernel>=7.4,<8',
    ],
  },
)
