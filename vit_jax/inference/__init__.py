"""A model that is ready to use: weights, preprocessing and class names in one object."""
