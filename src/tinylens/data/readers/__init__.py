"""Readers: one module a form of data set on disk."""
