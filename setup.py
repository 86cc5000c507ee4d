"""Which files travel in a wheel; all else about the package is in pyproject.toml."""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['vit_jax', 'vit_jax.*']),
    'vit_jax.report.templates',
    'vit_jax.configs',
  ],
  package_dir={'vit_jax.configs': 'configs'},  # one folder: the user's in a checkout
  package_data={
    'vit_jax': ['py.typed'],
    'vit_jax.data': ['*.txt'],
    'vit_jax.report.templates': ['*'],
    'vit_jax.weights': ['*.csv'],
  },
)
