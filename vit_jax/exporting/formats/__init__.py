"""The formats of exported models, one file each."""
