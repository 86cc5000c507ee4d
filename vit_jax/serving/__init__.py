"""An HTTP server of predictions, made of the standard library."""
