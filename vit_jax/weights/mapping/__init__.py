"""Families of models, one file each: which foreign array is which of ours, and all the rest."""
