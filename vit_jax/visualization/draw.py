"""The drawings of the command, each from arrays to a captioned figure."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax.errors import ConfigError, counted
from vit_jax.report.text import percent, printable
from vit_jax.visualization import figures, flow, learned, tokens
from vit_jax.visualization.activations import Captured, Layer, NotApplicable, capture_gradients
from vit_jax.visualization.images import ModelInput
from vit_jax.visualization.session import Session

_MODEL = 'The model itself'
_SEVERAL = 'All images'


@dataclasses.dataclass(frozen=True)
class Activations:
  """What the model computed from an image.

  Attributes:
    image: with its pixels.
    stem: start of its figures' names.
    captured: tensors by block, and logits.
  """

  image: ModelInput
  stem: str
  captured: Captured

  @property
  def name(self) -> str:
    """The image's file name, as it can be shown."""
    return printable(self.image.path.name)


@dataclasses.dataclass(frozen=True)
class Drawn:
  """What figures over several images need of one; attention itself would fill the memory.

  Attributes:
    image: with its pixels.
    captured: without layers, and with the outputs of `blocks` only.
    distances: attention layers and mean attention distances; None for a model without attention.
    blocks: number and name of the blocks whose tokens are shown.
  """

  image: ModelInput
  captured: Captured
  distances: tuple[list[Layer], np.ndarray] | None
  blocks: dict[int, str]

  @classmethod
  def of(cls, session: Session, activations: Activations) -> 'Drawn':
    """Keeps what is needed."""
    captured = activations.captured
    blocks = _shown_blocks(session, captured)
    outputs = {name: captured.outputs[name] for name in blocks.values()}
    has_attention = any(layer.kind == 'self' for layer in captured.layers)
    return cls(
      activations.image,
      dataclasses.replace(captured, layers=(), outputs=outputs, tokens=None),
      learned.attention_distance(captured) if has_attention else None,
      blocks,
    )


def _shown_blocks(session: Session, captured: Captured) -> dict[int, str]:
  """Number and name of the blocks whose tokens are shown: the chosen or six at all depths."""
  names = list(captured.outputs)
  if not names:
    return {}
  numbers = sorted({round(i) for i in np.linspace(0, len(names) - 1, 6)})
  if session.wanted.blocks is not None:
    numbers = pick('block', session.wanted.blocks, len(names))
  return {i: names[i] for i in numbers}


def pick(what: str, numbers: tuple[int, ...] | None, count: int) -> list[int]:
  """The chosen numbers, or all of `count`.

  Raises:
    ConfigError: one is too large.
  """
  if numbers is None:
    return list(range(count))
  wrong = [n for n in numbers if n >= count]
  if wrong:
    raise ConfigError(f'--{what}={wrong[0]}: there are {count}, 0 to {count - 1}')
  return list(numbers)


def attention(session: Session, activations: Activations) -> None:
  """Every block and head, for the class token or each chosen patch."""
  captured, wanted = activations.captured, session.wanted
  if not captured.layers:
    raise NotApplicable(f'{type(session.body).__name__} has no attention')
  for query in wanted.patches or (None,):
    layers = list(captured.layers)
    if query is not None:
      layers = [layer for layer in layers if layer.kind == 'self']
    if not layers:
      raise NotApplicable('this model has no queries of patches')
    layers = [layers[i] for i in pick('block', wanted.blocks, len(layers))]
    maps, labels, heads = [], [], None
    for layer in layers:
      values = flow.attention_map(captured, layer, query)[0]
      chosen = pick('head', wanted.heads, len(values))
      heads = heads if wanted.heads is None else chosen
      maps.append(values[chosen])
      labels.append(layer.label)
    who = _query_name(captured, layers) if query is None else f'patch {query[0]},{query[1]}'
    mark = query and figures.patch_mark(query, captured.patch_size)
    name = 'class' if query is None else f'patch_{query[0]}_{query[1]}'
    title = f'Attention of {who}'
    caption = (
      f'{activations.name}: attention of {who} to every patch, by block and head. Bright is more. '
      f'Each tile has its own scale, clipped at the outermost {figures.CLIPPED:g} % of the patches.'
    )
    if mark:
      caption += ' The box is the query patch (row, column counted from 0).'
    figure = figures.attention_figure(
      activations.image.pixels,
      maps,
      labels,
      f'{title}: {activations.name}',
      caption,
      heads,
      mark,
    )
    file = f'{activations.stem}_attention_{name}'
    session.add(file, activations.name, figure, title, caption)


def _query_name(captured: Captured, layers: Sequence[Layer]) -> str:
  """Whose attention is shown where no patch was chosen."""
  names = []
  for layer in layers:
    if layer.kind == 'probe':
      names.append('the pooling probe')
    elif layer.kind == 'class' or (captured.class_token and layer.prefix):
      names.append('the class token')
    else:
      names.append('the mean patch')
  return ' or '.join(dict.fromkeys(names))


def rollouts(session: Session, activations: Activations) -> None:
  """Attention rollout with each way to fuse heads, for the output or each chosen patch."""
  captured, wanted = activations.captured, session.wanted
  for query in wanted.patches or (None,):
    maps = [flow.rollout_map(captured, f, wanted.discard, query)[0] for f in wanted.fusions]
    names = [f'{fusion} of heads' for fusion in wanted.fusions]
    mark = query and figures.patch_mark(query, captured.patch_size)
    place = '' if query is None else f' of patch {query[0]},{query[1]}'
    output = 'the output' if query is None else 'the token at the box'
    title = f'Attention rollout{place}'
    dropped = f' The lowest {wanted.discard:.0%} of weights are left out.' if wanted.discard else ''
    caption = (
      f'{activations.name}: attention of all blocks multiplied, residual connections included; '
      f'bright patches weigh most in {output}, the ring is the peak.{dropped} Heads are fused as '
      'named.'
    )
    figure = figures.overlay_figure(
      activations.image.pixels, maps, names, f'{title}: {activations.name}', caption, mark
    )
    suffix = '' if query is None else f'_patch_{query[0]}_{query[1]}'
    file = f'{activations.stem}_rollout{suffix}'
    session.add(file, activations.name, figure, title, caption)


def class_attribution(session: Session, activations: Activations) -> None:
  """Gradient rollout for classes: the chosen ones or the two most confident."""
  wanted, image, logits = session.wanted, activations.image, activations.captured.logits[0]
  indices = session.class_indices or np.argsort(-logits, kind='stable')[:2].tolist()
  variables = session.variables(image)
  maps = []
  for index in indices:
    captured = capture_gradients(session.module, variables, image.images, index)
    maps.append(flow.gradient_rollout_map(captured, wanted.discard)[0])
  probabilities = session.probabilities(logits)
  names = [f'{session.class_name(i)}: {percent(float(probabilities[i]))}' for i in indices]
  title = 'Class attribution'
  caption = (
    f'{activations.name}: gradient rollout, attention times the gradient of the class logit where '
    'positive, through all blocks; bright patches raise the logit, the ring is the peak. Beside '
    "the name is the class's probability."
  )
  figure = figures.overlay_figure(
    image.pixels, maps, names, f'{title}: {activations.name}', caption
  )
  session.add(f'{activations.stem}_gradient', activations.name, figure, title, caption)


def channels(session: Session, activations: Activations) -> None:
  """Single channels of one block's tokens, queries, keys and values."""
  captured, wanted = activations.captured, session.wanted
  names = list(captured.outputs)
  if not names:
    raise NotApplicable('this model has no tokens of blocks')
  block = pick('block', wanted.blocks, len(names))[-1]
  rows = [('tokens', captured.patches(captured.outputs[names[block]])[0])]
  layer = next((x for x in captured.layers if x.name.startswith(names[block] + '/')), None)
  if layer is not None and layer.query is not None:
    head = pick('head', wanted.heads, layer.query.shape[1])[0]
    for kind in ('query', 'key', 'value'):
      values = captured.patches(getattr(layer, kind))[0, head]
      rows.append((f'{kind}\nhead {head}', values))
  sheet: list[list[np.ndarray | None]] = []
  titles: list[list[str]] = []
  for i, (_, grid) in enumerate(rows):
    indices, maps = tokens.channel_maps(grid, 8, wanted.channels)
    sheet.append([None if i else activations.image.pixels, *maps])
    titles.append(['' if i else 'image', *(f'channel {c}' for c in indices)])
  which = 'the chosen ones' if wanted.channels else 'those that vary most over the image'
  title = f'Channels of block {block}'
  caption = (
    f'{activations.name}: single channels as images of one tile per patch, {which}. '
    "'tokens' is the output of the block. Bright is more; each tile has its own scale, clipped at "
    f'the outermost {figures.CLIPPED:g} % of the patches.'
  )
  figure = figures.sheet_figure(
    sheet,
    titles,
    [label for label, _ in rows],
    f'{title}: {activations.name}',
    caption,
    tile=1.35,
  )
  session.add(f'{activations.stem}_channels', activations.name, figure, title, caption)


def token_pca(session: Session, drawn: Sequence[Drawn], most: int = 12) -> None:
  """Principal components of patch tokens at several depths, common to all images."""
  blocks = drawn[0].blocks
  if not blocks:
    raise NotApplicable('this model has no tokens of blocks')
  for start in range(0, len(drawn), most):
    part = drawn[start : start + most]
    sheet, titles = [[d.image.pixels] for d in part], [['image'] for _ in part]
    for block, name in blocks.items():
      grids = [d.captured.patches(d.captured.outputs[name])[0] for d in part]
      for row, title_row, colors in zip(sheet, titles, tokens.token_pca(grids)):
        row.append(colors)
        title_row.append(f'block {block}')
    title = 'Token PCA'
    caption = (
      'The first three principal components of the patch tokens as red, green and blue, at several '
      'depths. The components are common to the images of a column: similar colors are similar '
      'tokens. Colors of different columns are unrelated.'
    )
    labels = [_short(d.image.path.name) for d in part]
    figure = figures.sheet_figure(sheet, titles, labels, title, caption)
    number = '' if len(drawn) <= most else f'_{start // most + 1}'
    session.add(f'token_pca{number}', _SEVERAL, figure, title, caption)


def _short(name: str, most: int = 19) -> str:
  """Leaves the middle out of a long name: numbers are at the end."""
  name, half = printable(name), (most - 1) // 2
  return name if len(name) <= most else f'{name[:half]}…{name[-half:]}'


def distance(session: Session, drawn: Sequence[Drawn]) -> None:
  """Mean attention distance by depth and head over all images."""
  found = [d.distances for d in drawn if d.distances is not None]
  if not found:
    raise NotApplicable('attention distance needs attention between patches')
  means = np.mean([distances for _, distances in found], axis=0)
  uniform = np.mean(
    [
      learned.uniform_distance(d.captured.grid, d.captured.patch_size)
      for d in drawn
      if d.distances is not None
    ]
  )
  labels = [layer.label for layer in found[0][0]]
  title = 'Mean attention distance'
  count = counted(len(found), 'image')
  caption = (
    'Distance in pixels between the patches of query and key, weighted by attention, mean over '
    f'patches and {count}; one dot for each head. Dashed: a head of uniform attention.'
  )
  figure = figures.distance_figure(labels, means, float(uniform), title, caption)
  session.add('attention_distance', _MODEL, figure, title, caption)


def positions(session: Session, first: Drawn) -> None:
  """Similarity of position embeddings on the grid of the first image."""
  grid = first.captured.grid
  variables = session.variables(first.image)
  similarity = learned.position_similarity(session.body, variables, grid)
  title = 'Similarity of position embeddings'
  caption = (
    f'Each tile is of one patch of the {grid[0]} x {grid[1]} grid: cosine similarity of its '
    'position embedding with those of all patches, laid out as they lie in the image.'
  )
  figure = figures.position_figure(similarity, title, caption)
  session.add('position_embeddings', _MODEL, figure, title, caption)


def filters(session: Session) -> None:
  """Principal components of the filters of the first layer."""
  components, shares = learned.patch_filters(session.loaded.variables)
  title = 'First filters'
  caption = (
    f'The first {len(components)} principal components of the filters of the first layer, and the '
    f'share of variance that each explains ({shares.sum():.0%} together). Grey is zero; each is '
    'scaled by its own greatest value.'
  )
  figure = figures.filter_figure(components, shares, title, caption)
  session.add('patch_filters', _MODEL, figure, title, caption)


def nearest_images(session: Session, most: int = 8) -> None:
  """Nearest images by embedding beside nearest by pixels."""
  wanted = session.wanted
  gallery = wanted.gallery or wanted.images
  paths = list(dict.fromkeys([*gallery, *wanted.images]))
  if len(paths) < 2:
    raise NotApplicable('nearest images need more images: name a folder with --gallery')
  inputs = [image for path in paths if (image := session.read(path)) is not None]
  if len(inputs) < 2:
    raise NotApplicable('fewer than two images can be decoded')
  images = np.concatenate([image.images for image in inputs])
  found = tokens.embeddings(session.body, session.loaded.variables, images)
  pixels = np.stack([image.pixels for image in inputs]).astype(np.float32) / 255.0
  queries = [i for i, image in enumerate(inputs) if image.path in wanted.images]
  places = [i for i, image in enumerate(inputs) if image.path in gallery]
  own = [places.index(q) if q in places else -1 for q in queries]
  candidates = [inputs[i] for i in places]
  for start in range(0, len(queries), most):
    part, own_part = queries[start : start + most], own[start : start + most]
    near = tokens.nearest(found[part], found[places], wanted.count, 'cosine', own_part)
    like = tokens.nearest(pixels[part], pixels[places], wanted.count, 'mse', own_part)
    sheet: list[list[np.ndarray | str]] = []
    titles: list[list[str]] = []
    for i, query in enumerate(part):
      row: list[np.ndarray | str] = [inputs[query].pixels]
      title_row = [_short(inputs[query].path.stem)]
      for heading, kind, (order, values) in (
        ('by embedding', 'similarity', near),
        ('by pixels', 'error', like),
      ):
        row += [heading, *(candidates[j].pixels for j in order[i])]
        title_row += [
          '',
          *(
            f'{_short(candidates[j].path.stem)}\n{kind} {value:.3f}'
            for j, value in zip(order[i], values[i])
          ),
        ]
      sheet.append(row)
      titles.append(title_row)
    title = 'Nearest images'
    caption = (
      f'Left: the image. Middle: the nearest of {counted(len(places), "image")} by cosine '
      'similarity of their embeddings (greater is nearer). Right: the nearest by mean squared '
      'error of their pixels, on the 0 to 1 scale (smaller is nearer).'
    )
    figure = figures.sheet_figure(sheet, titles, [''] * len(sheet), title, caption, tile=1.4)
    number = '' if len(queries) <= most else f'_{start // most + 1}'
    session.add(f'nearest{number}', _SEVERAL, figure, title, caption)
