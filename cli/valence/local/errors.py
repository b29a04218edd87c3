"""The error of this package."""


class LocalError(Exception):
    """Valence cannot start or continue; the message is printed without a traceback."""
