"""Batches: claim, score and store chunks, and recover lost ones."""
