"""The floor that every Valence service stands on; its README holds the closed list of modules."""

from importlib.metadata import version

__version__ = version("valence-common")
