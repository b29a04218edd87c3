"""Cleanup: delete expired rows and the rows of erased accounts."""
