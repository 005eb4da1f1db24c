"""Evaluation: metrics with intervals, comparison, diagnosis, robustness."""
