"""Collectives read from a program's text: kinds, bytes, groups however they are written, loops."""

from vit_jax.parallel.collectives import collectives

PROGRAM = """HloModule jit_step, is_scheduled=true

%body.1 (arg: (s32[], f32[7,11])) -> (s32[], f32[7,11]) {
  %g = bf16[14,11]{1,0} all-gather(%x), channel_id=1, replica_groups={{0,1},{2,3}}, dimensions={0}
  %r = (f32[5]{0}, f32[3,2]{1,0}) all-reduce(%a, %b), replica_groups=[1,4]<=[4], to_apply=%add
}

%add (p: f32[], q: f32[]) -> f32[] {
  ROOT %s = f32[] add(%p, %q)
}

ENTRY %main.9 (p0: f32[7,11]) -> f32[] {
  %w = (s32[], f32[7,11]) while(%t), body=%body.1, x={"known_trip_count":{"n":"13"}}
  %s = f32[17]{0} all-reduce-start(%c), replica_groups=mesh['a'=2,'b'=3] {'a','b'}, op_name="norm"
  %d = f32[17]{0} all-reduce-done(%s)
}
"""


def test_collectives_of_a_program():
  gathered, reduced, started = collectives(PROGRAM)
  assert (gathered.kind, gathered.nbytes, gathered.devices) == ('all-gather', 14 * 11 * 2, 2)
  assert gathered.times == reduced.times == 13 and started.times == 1
  assert reduced.shapes == ((5,), (3, 2)) and reduced.nbytes == 4 * (5 + 6)
  assert reduced.devices == 4
  assert (started.nbytes, started.devices, started.source) == (4 * 17, 6, 'norm')
