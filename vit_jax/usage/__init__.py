"""What the commands can be asked: the table of config options and the pages that show it.

Quick: the table is kept in the cache folder, so that `--help` need not import JAX.
"""
