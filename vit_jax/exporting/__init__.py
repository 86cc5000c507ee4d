"""Folders that run a model without this package: the model with its weights, classes, a record.

To add a format, write a file in `formats/` with a class under `@EXPORTS.register('name')`: see
`base`.
"""
