"""What became of every tensor while weights were loaded."""

import dataclasses

from vit_jax.errors import some


@dataclasses.dataclass
class Report:
  """Both leftovers and every change, by name.

  Args:
    source: the file.
    format: in which it is.
    missing: ours that the file does not give.
    unexpected: tensors of the file that the model has no place for.
    resized: ours that were brought to another shape, with both shapes.
    reinitialised: ours that start afresh because that was asked for.
    dropped: tensors of the file that were left out because that was asked for.
    ignored: tensors of the file that are no weights of this model (another tower, counters).
    channels: of the images that the model was built for.
    left_out: of these, weights that might belong to the model, such as a head beside it.
    invalid: tensors with values that no model can compute with, which was allowed, and how many.
  """

  source: str = ''
  format: str = ''
  missing: list[str] = dataclasses.field(default_factory=list)
  unexpected: list[str] = dataclasses.field(default_factory=list)
  resized: list[str] = dataclasses.field(default_factory=list)
  reinitialised: list[str] = dataclasses.field(default_factory=list)
  dropped: list[str] = dataclasses.field(default_factory=list)
  ignored: list[str] = dataclasses.field(default_factory=list)
  channels: int = 3
  left_out: list[str] = dataclasses.field(default_factory=list)
  invalid: list[str] = dataclasses.field(default_factory=list)

  def __str__(self) -> str:
    lines = [f'weights from {self.source} ({self.format})']
    for field in (
      'missing',
      'unexpected',
      'resized',
      'reinitialised',
      'dropped',
      'ignored',
      'invalid',
    ):
      names = getattr(self, field)
      if names:
        lines.append(f'  {field}: {some(names)}')
    if len(lines) == 1:
      lines.append('  every tensor used as it is')
    return '\n'.join(lines)
