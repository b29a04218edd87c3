"""Valence for its users: the typed client, the command and the local launcher."""
