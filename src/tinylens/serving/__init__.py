"""A model file behind HTTP."""
