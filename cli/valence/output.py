"""How a command of ours ends when it cannot do what it was asked: one sentence, exit code 1."""

from typing import NoReturn

import typer
from rich.console import Console


def fail(sentence: str) -> NoReturn:
    """End the command."""
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def fail_without_extra(command: str, error: ImportError) -> NoReturn:
    """End a command that needs more than the typed client is installed with."""
    fail(f"{command} needs the extra valence[local] ({error.name} is missing).")


def say(sentence: str) -> None:
    """Tell the user something; a long line stays whole."""
    Console().print(sentence, markup=False, highlight=False, soft_wrap=True)
