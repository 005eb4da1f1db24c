"""Data loading: dataset types, format readers, the image decoder, built-in datasets."""
