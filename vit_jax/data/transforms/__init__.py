"""Image transforms: the operations of a transform string, and the string itself."""
