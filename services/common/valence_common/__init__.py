"""The code that all Valence services share; the README lists its modules and why they are here."""

from importlib.metadata import version

__version__ = version("valence-common")
