"""Live updates: batch progress and the registry of open connections."""
