"""Containers of arrays, one file each: bytes <-> named arrays, whatever model they are of."""
