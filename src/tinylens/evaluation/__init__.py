"""Evaluation: metrics with intervals, comparison, diagnosis, robustness, out-of-distribution scores."""
