"""Weights of every neighbouring ecosystem, read into a model and written from one.

`containers/` turns files into named arrays and back, whatever the names. `formats/` has one file a
weight format: a naming of arrays, the container that it is written in, and what lies beside it.
`mapping/` has one file a family of models: its rules between each naming and ours, and all else
that is known of its foreign weights. `hub` and `download` fetch pretrained models by name.

`reading` opens weights, `building` makes the model that they belong to, `loading` fits them to it
(`matching` finds the tensors, `resize` adapts them), and `saving` writes them. `vit_jax.convert` is
the public address of `read`, `load` and `write`.
"""
