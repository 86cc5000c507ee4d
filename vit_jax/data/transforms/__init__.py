"""Image transforms.

`parse` reads the transform string, whose ops are made of `base`: those that decode, resize and crop
(`spatial`), `augmentations`, and the `policies` that draw `operations`. `geometry` moves pixels and
boxes together; `fused` is the fast path for the usual training ops.
"""
