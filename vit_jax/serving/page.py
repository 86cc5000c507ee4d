"""The page on which images are classified in a browser."""

from collections.abc import Sequence

from vit_jax.report.page import render
from vit_jax.serving.batching import Service


def of(services: Sequence[Service]) -> str:
  """The page as HTML.

  Args:
    services: that can be chosen.
  """
  return render('serve.html', models=[_described(service) for service in services])


def _described(service: Service) -> dict[str, str]:
  loaded = service.loaded
  h, w = loaded.preprocess.image_size
  architecture = loaded.config['model']['name']
  about = f'{architecture}, {loaded.module.num_classes:,} classes, images of {w} x {h} pixels'
  return {'name': service.name, 'about': about}
