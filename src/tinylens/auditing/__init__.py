"""Data audit: label errors, duplicates, outliers."""
