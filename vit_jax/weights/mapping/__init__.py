"""Which foreign array is which of ours: one file a family of models."""
