"""Weights of every neighbouring ecosystem, read into a model and written from one.

`formats/` turns files into named arrays and back; `mapping/` says which foreign array is which of
ours, a family of models each; `hub` finds and downloads pretrained models by name. `reading` opens
weights, `building` makes the model that they belong to, `loading` fits them to it, and `saving`
writes them. `vit_jax.convert` is the public address of `read`, `load` and `write`.
"""
