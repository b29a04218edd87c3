"""The one error of this package: what went wrong, said in a sentence a user can act on."""


class LocalError(Exception):
    """Why Valence cannot start or go on here; its text is printed as it is, without a traceback."""
