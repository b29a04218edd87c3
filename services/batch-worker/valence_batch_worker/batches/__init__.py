"""Batches: claiming, scoring and storing chunks, and recovering lost ones."""
