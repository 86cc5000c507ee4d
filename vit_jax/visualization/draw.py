"""The drawings of the command, each from arrays to a captioned figure."""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.visualization import figures, flow, learned, tokens
from vit_jax.visualization.activations import Captured, Layer, NotApplicable, capture_gradients
from vit_jax.visualization.images import Picture

_MODEL = 'The model itself'
_SEVERAL = 'All pictures'


@dataclasses.dataclass(frozen=True)
class Seen:
  """A picture that has been through the model.

  Args:
    picture: with its pixels.
    stem: start of its files' names.
    captured: what went on inside.
    logits: [num_classes].
    distances: mean attention distances, once the attention itself has been let go.
    blocks: number and name of the blocks whose tokens are still there by then.
  """

  picture: Picture
  stem: str
  captured: Captured
  logits: np.ndarray
  distances: tuple[list[Layer], np.ndarray] | None = None
  blocks: dict[int, str] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    return self.picture.path.name

  def lightened(self, blocks: dict[int, str]) -> 'Seen':
    """Keeps what figures over several pictures need, so that many pictures fit in memory."""
    outputs = {name: self.captured.outputs[name] for name in blocks.values()}
    has_attention = any(layer.kind == 'self' for layer in self.captured.layers)
    return dataclasses.replace(
      self,
      captured=dataclasses.replace(self.captured, layers=(), outputs=outputs, tokens=None),
      distances=learned.attention_distance(self.captured) if has_attention else None,
      blocks=blocks,
    )


def pick(what: str, numbers: tuple[int, ...] | None, count: int) -> list[int]:
  """The chosen numbers, or all of `count`.

  Raises:
    UserError: one is too large.
  """
  if numbers is None:
    return list(range(count))
  wrong = [n for n in numbers if n >= count]
  if wrong:
    raise UserError(f'--{what}={wrong[0]}: there are {count}, 0 to {count - 1}')
  return list(numbers)


def attention(session: Any, seen: Seen) -> None:
  """Every block and head, for the class token or each chosen patch."""
  captured, wanted = seen.captured, session.wanted
  if not captured.layers:
    raise NotApplicable(f'{type(session.body).__name__} has no attention')
  for query in wanted.patches or (None,):
    layers = captured.layers if query is None else [x for x in captured.layers if x.kind == 'self']
    if not layers:
      raise NotApplicable('no patch asks here')
    layers = [layers[i] for i in pick('block', wanted.blocks, len(layers))]
    maps, labels, heads = [], [], None
    for layer in layers:
      values = flow.attention_map(captured, layer, query)[0]
      chosen = pick('head', wanted.heads, len(values))
      heads = heads if wanted.heads is None else chosen
      maps.append(values[chosen])
      labels.append(layer.label)
    asks = _who_asks(captured, layers) if query is None else f'patch {query[0]},{query[1]}'
    mark = query and figures.patch_mark(query, captured.patch_size)
    name = 'class' if query is None else f'patch_{query[0]}_{query[1]}'
    title = f'Attention of {asks}'
    caption = (
      f'{seen.name}: how much {asks} takes from every patch, by block and head. Bright is more. '
      f'Each tile has its own scale, clipped at the outermost {figures.CLIPPED:g} % of the patches.'
    )
    if mark:
      caption += ' The box is the asking patch (row, column counted from 0).'
    figure = figures.attention_figure(
      seen.picture.pixels, maps, labels, f'{title}: {seen.name}', caption, heads, mark
    )
    session.add(f'{seen.stem}_attention_{name}', seen.name, figure, title, caption)


def _who_asks(captured: Captured, layers: list[Layer]) -> str:
  names = []
  for layer in layers:
    if layer.kind == 'probe':
      names.append('the pooling probe')
    elif layer.kind == 'class' or (captured.class_token and layer.prefix):
      names.append('the class token')
    else:
      names.append('the mean patch')
  return ' or '.join(dict.fromkeys(names))


def rollouts(session: Any, seen: Seen) -> None:
  """Attention rollout with each way to join heads, for the output or each chosen patch."""
  captured, wanted = seen.captured, session.wanted
  for query in wanted.patches or (None,):
    maps = [flow.rollout_map(captured, f, wanted.discard, query)[0] for f in wanted.fusions]
    names = [f'{fusion} of heads' for fusion in wanted.fusions]
    mark = query and figures.patch_mark(query, captured.patch_size)
    place = '' if query is None else f' of patch {query[0]},{query[1]}'
    output = 'the output' if query is None else 'the token at the box'
    title = f'Attention rollout{place}'
    dropped = f' The lowest {wanted.discard:.0%} of weights are left out.' if wanted.discard else ''
    caption = (
      f'{seen.name}: attention of all blocks multiplied, residual connections included; bright '
      f'patches reach {output} most, the ring is the peak.{dropped} Heads are joined as named.'
    )
    figure = figures.overlay_figure(
      seen.picture.pixels, maps, names, f'{title}: {seen.name}', caption, mark
    )
    suffix = '' if query is None else f'_patch_{query[0]}_{query[1]}'
    session.add(f'{seen.stem}_rollout{suffix}', seen.name, figure, title, caption)


def gradients(session: Any, seen: Seen) -> None:
  """Rollout for classes: the chosen ones or the two likeliest."""
  wanted = session.wanted
  indices = session.class_indices or np.argsort(-seen.logits, kind='stable')[:2].tolist()
  variables = session.variables(seen.picture)
  maps = []
  for index in indices:
    captured = capture_gradients(session.module, variables, seen.picture.images, index)
    maps.append(flow.gradient_rollout_map(captured, wanted.discard)[0])
  shares = session.probabilities(seen.logits)
  names = [f'{session.class_name(i)}: {shares[i]:.1%}' for i in indices]
  title = 'What speaks for a class'
  caption = (
    f'{seen.name}: gradient rollout, attention times the gradient of the class in it where '
    'positive, through all blocks; bright patches speak for the class, the ring is the peak. '
    "Beside the name stands the class's probability."
  )
  figure = figures.overlay_figure(
    seen.picture.pixels, maps, names, f'{title}: {seen.name}', caption
  )
  session.add(f'{seen.stem}_gradient', seen.name, figure, title, caption)


def channels(session: Any, seen: Seen) -> None:
  """Single channels of one block's tokens, queries, keys and values."""
  captured, wanted = seen.captured, session.wanted
  names = list(captured.outputs)
  if not names:
    raise NotApplicable('this model shows no tokens of its blocks')
  block = pick('block', wanted.blocks, len(names))[-1]
  rows = [('tokens', captured.patches(captured.outputs[names[block]])[0])]
  layer = next((x for x in captured.layers if x.name.startswith(names[block] + '/')), None)
  if layer is not None and layer.query is not None:
    head = pick('head', wanted.heads, layer.query.shape[1])[0]
    for kind in ('query', 'key', 'value'):
      values = captured.patches(getattr(layer, kind))[0, head]
      rows.append((f'{kind}\nhead {head}', values))
  sheet, titles = [], []
  for _, grid in rows:
    indices, maps = tokens.channel_maps(grid, 8, wanted.channels)
    sheet.append(list(maps))
    titles.append([f'channel {i}' for i in indices])
  which = 'the chosen ones' if wanted.channels else 'those that vary most over the picture'
  title = f'Channels of block {block}'
  caption = (
    f"{seen.name}: single channels as pictures of one tile a patch, {which}. 'tokens' is what the "
    'block returns. Bright is more; each tile has its own scale, clipped at the outermost '
    f'{figures.CLIPPED:g} % of the patches.'
  )
  sheet = [[None if i else seen.picture.pixels, *row] for i, row in enumerate(sheet)]
  titles = [['' if i else 'picture', *row] for i, row in enumerate(titles)]
  labels = [label for label, _ in rows]
  figure = figures.sheet_figure(sheet, titles, labels, f'{title}: {seen.name}', caption, tile=1.35)
  session.add(f'{seen.stem}_channels', seen.name, figure, title, caption)


def coloured_blocks(session: Any, captured: Captured) -> dict[int, str]:
  """Number and name of the blocks whose tokens are coloured: the chosen or six at all depths."""
  names = list(captured.outputs)
  if not names:
    return {}
  numbers = sorted({round(i) for i in np.linspace(0, len(names) - 1, 6)})
  if session.wanted.blocks is not None:
    numbers = pick('block', session.wanted.blocks, len(names))
  return {i: names[i] for i in numbers}


def colours(session: Any, seen: list[Seen], most: int = 12) -> None:
  """Principal components of patch tokens at several depths, common to all pictures."""
  blocks = seen[0].blocks
  if not blocks:
    raise NotApplicable('this model shows no tokens of its blocks')
  for start in range(0, len(seen), most):
    part = seen[start : start + most]
    sheet, titles = [[s.picture.pixels] for s in part], [['picture'] for _ in part]
    for block, name in blocks.items():
      grids = [s.captured.patches(s.captured.outputs[name])[0] for s in part]
      for row, title_row, picture in zip(sheet, titles, tokens.token_colours(grids)):
        row.append(picture)
        title_row.append(f'block {block}')
    title = 'Patch tokens as colours'
    caption = (
      'The first three principal components of the patch tokens as red, green and blue, at several '
      'depths. The components are common to the pictures of a column: alike colours are alike '
      'tokens. Colours of different columns have nothing to do with each other.'
    )
    labels = [_short(s.name) for s in part]
    figure = figures.sheet_figure(sheet, titles, labels, title, caption)
    number = '' if len(seen) <= most else f'_{start // most + 1}'
    session.add(f'token_colours{number}', _SEVERAL, figure, title, caption)


def _short(name: str, most: int = 19) -> str:
  """Leaves the middle out of a long name: numbers are at the end."""
  half = (most - 1) // 2
  return name if len(name) <= most else f'{name[:half]}…{name[-half:]}'


def distance(session: Any, seen: list[Seen]) -> None:
  """Mean attention distance by depth and head over all pictures."""
  found = [s for s in seen if s.distances is not None]
  if not found:
    raise NotApplicable('attention distance needs attention between patches')
  means = np.mean([s.distances[1] for s in found], axis=0)
  uniform = np.mean(
    [learned.uniform_distance(s.captured.grid, s.captured.patch_size) for s in found]
  )
  labels = [layer.label for layer in found[0].distances[0]]
  title = 'Mean attention distance'
  count = '1 picture' if len(found) == 1 else f'{len(found)} pictures'
  caption = (
    'Distance in pixels between a patch and the patches that it takes from, weighed by attention, '
    f'mean over patches and {count}; one dot for each head. Dashed: a head that looks everywhere '
    'alike.'
  )
  figure = figures.distance_figure(labels, means, float(uniform), title, caption)
  session.add('attention_distance', _MODEL, figure, title, caption)


def positions(session: Any, seen: list[Seen]) -> None:
  """Similarity of position embeddings on the grid of the first picture."""
  if not seen:
    raise NotApplicable('this model has no position embeddings')
  grid = seen[0].captured.grid
  variables = session.variables(seen[0].picture)
  similarity = learned.position_similarity(session.body, variables, grid)
  title = 'Similarity of position embeddings'
  caption = (
    f'Each tile is the picture of one patch on the {grid[0]} x {grid[1]} grid: cosine similarity '
    'of its position embedding with those of all patches, laid out as they lie in the picture.'
  )
  figure = figures.position_figure(similarity, title, caption)
  session.add('position_embeddings', _MODEL, figure, title, caption)


def filters(session: Any) -> None:
  """Principal components of the filters that see the pixels."""
  components, shares = learned.patch_filters(session.loaded.variables)
  title = 'First filters'
  caption = (
    f'The first {len(components)} principal components of the filters that see the pixels, and the '
    f'share of variance that each explains ({shares.sum():.0%} together). Grey is zero; each is '
    'stretched to its own greatest value.'
  )
  figure = figures.filter_figure(components, shares, title, caption)
  session.add('patch_filters', _MODEL, figure, title, caption)


def nearest_pictures(session: Any, most: int = 8) -> None:
  """Nearest pictures by embedding beside nearest by pixels."""
  wanted = session.wanted
  gallery = wanted.gallery or wanted.images
  if len({*gallery, *wanted.images}) < 2:
    raise NotApplicable('nearest pictures need more pictures: name a folder with --gallery')
  paths = list(dict.fromkeys([*gallery, *wanted.images]))
  pictures = [session.read(path) for path in paths]
  readable = {path for path, picture in zip(paths, pictures) if picture is not None}
  pictures = [p for p in pictures if p is not None]
  paths = [path for path in paths if path in readable]
  if len(paths) < 2:
    raise NotApplicable('fewer than two pictures can be read')
  images = np.concatenate([p.images for p in pictures])
  found = tokens.embeddings(session.body, session.loaded.variables, images)
  pixels = np.stack([p.pixels for p in pictures]).astype(np.float32) / 255.0
  queries = [i for i, path in enumerate(paths) if path in wanted.images]
  places = [i for i, path in enumerate(paths) if path in gallery]
  own = [places.index(q) if q in places else -1 for q in queries]
  for start in range(0, len(queries), most):
    part, own_part = queries[start : start + most], own[start : start + most]
    sheet, titles = [], []
    near = tokens.nearest(found[part], found[places], wanted.count, 'cosine', own_part)
    like = tokens.nearest(pixels[part], pixels[places], wanted.count, 'mse', own_part)
    for i, query in enumerate(part):
      row, title_row = [pictures[query].pixels], [_short(paths[query].stem)]
      for words, kind, (order, values) in (
        ('by embedding', 'similarity', near),
        ('by pixels', 'error', like),
      ):
        found_row = [
          (paths[places[j]], pictures[places[j]], v) for j, v in zip(order[i], values[i])
        ]
        row += [words, *(picture.pixels for _, picture, _ in found_row)]
        title_row += ['', *(f'{_short(path.stem)}\n{kind} {v:.3f}' for path, _, v in found_row)]
      sheet.append(row)
      titles.append(title_row)
    title = 'Nearest pictures'
    caption = (
      f'Left: the picture. Middle: the nearest of {len(places)} pictures by '
      'cosine similarity of their embeddings (greater is nearer). Right: the nearest by mean '
      'squared error of their pixels, on the 0 to 1 scale (smaller is nearer).'
    )
    figure = figures.sheet_figure(sheet, titles, [''] * len(sheet), title, caption, tile=1.4)
    number = '' if len(queries) <= most else f'_{start // most + 1}'
    session.add(f'nearest{number}', _SEVERAL, figure, title, caption)
