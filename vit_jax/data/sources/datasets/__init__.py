"""Published datasets that prepare themselves, one file each; see `sources.published`."""
