"""HTTP server for a model file."""
