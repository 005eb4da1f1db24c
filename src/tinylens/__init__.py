"""Train, check, explain and ship classifiers for small images."""

__version__ = "0.1.0"
