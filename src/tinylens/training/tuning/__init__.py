"""Hyperparameter search over a recipe's search space, on val alone."""
