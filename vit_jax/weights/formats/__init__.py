"""Weight files as lazily read, named arrays, one file a container format."""
