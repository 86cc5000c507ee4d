"""Parameters of every model with 1000 classes at 224 x 224, by hand from the papers' tables.

Those papers round to millions, so the digits come from the sizes that they give; names marked with
a comment differ from a published figure, and why.
"""

COUNTS = {
  'vit_ti16': 5_717_416,
  'vit_s8': 22_055_272,
  'vit_s14': 22_004_584,
  'vit_s16': 22_050_664,
  'vit_s32': 22_878_952,
  'vit_b8': 86_576_872,
  'vit_b14': 86_475_496,
  'vit_b16': 86_567_656,
  'vit_b32': 88_224_232,
  'vit_l14': 304_203_752,
  'vit_l16': 304_326_632,
  'vit_l32': 306_535_400,
  'vit_h14': 632_045_800,
  'vit_h16': 632_199_400,
  'vit_g14': 1_037_857_384,  # with the pooling's own attention and MLP; the trunk has 1011 million
  'vit_gg14': 1_882_797_416,  # likewise
  'r_ti16': 6_337_704,
  'r26_s32': 36_431_912,
  'r26_b32': 101_383_976,
  'r50_b16': 98_659_112,
  'r50_l16': 316_483_624,
  'r50_l32': 328_994_856,
}
