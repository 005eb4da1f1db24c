"""Reports: pages, charts, tables and the model card."""
