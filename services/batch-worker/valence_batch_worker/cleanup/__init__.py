"""Cleanup: deleting what has expired and what belonged to erased accounts."""
