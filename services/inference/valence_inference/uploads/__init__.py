"""Uploads of batches: each kind of body is read in parts, checked row by row and chunked."""
