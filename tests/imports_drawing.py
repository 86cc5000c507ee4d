"""The drawing of who imports whom: `python -m tests.imports_drawing > docs/images/imports.svg`."""

from tests.test_layout import FILES, LAYERS, LEVEL, _imports, _part

_CELL, _LEFT, _TOP = 18, 118, 116  # pixels
_INK, _SOFT, _BAND, _PAPER = '#1f2937', '#9ca3af', '#eef2ff', '#ffffff'
_USED = '#3f51b5'


def imports_of_parts() -> dict[str, set[str]]:
  """What each part of the package imports from other parts, wherever the import stands."""
  found: dict[str, set[str]] = {part: set() for part in LEVEL}
  for path in FILES:
    used = {name.split('.')[1] for name in _imports(path) if name.startswith('vit_jax.')}
    found[_part(path)] |= (used & set(LEVEL)) - {_part(path)}
  return found


def drawing() -> str:
  """The table of imports as SVG: a row imports the columns that are marked."""
  used = imports_of_parts()
  parts = [part for parts in LAYERS for part in parts if part != '__init__']
  place = {part: i for i, part in enumerate(parts)}
  side = _CELL * len(parts)
  width, height = _LEFT + side + 32, _TOP + side + 8
  frame = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="sans-serif" font-size="12">',
    '<title>Imports between the parts of vit_jax: all of them point down the list</title>',
    f'<rect width="{width}" height="{height}" fill="{_PAPER}"/>',
  ]
  for i, layer in enumerate(LAYERS):
    rows = [place[part] for part in layer if part in place]
    if i % 2 == 0 and rows:
      y, h = _TOP + _CELL * min(rows), _CELL * len(rows)
      lines.append(f'<rect y="{y}" width="{width}" height="{h}" fill="{_BAND}"/>')
  for part, i in place.items():
    x, y = _LEFT + _CELL * i, _TOP + _CELL * i
    lines += [
      f'<text x="{_LEFT - 6}" y="{y + 13}" text-anchor="end" fill="{_INK}">{part}</text>',
      f'<text transform="translate({x + 13} {_TOP - 6}) rotate(-60)" fill="{_INK}">{part}</text>',
      f'<circle cx="{x + 9}" cy="{y + 9}" r="3" fill="{_SOFT}"/>',
    ]
    for other in sorted(used[part] & set(place), key=place.__getitem__):
      lines.append(
        f'<rect x="{_LEFT + _CELL * place[other] + 3}" y="{y + 3}" width="12" height="12" rx="2" '
        f'fill="{_USED}"><title>{part} imports {other}</title></rect>'
      )
  return '\n'.join([*lines, '</svg>', ''])


if __name__ == '__main__':
  print(drawing(), end='')
