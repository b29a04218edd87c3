"""Batches on their way in: each kind of body, read in parts, judged row by row and packed."""
