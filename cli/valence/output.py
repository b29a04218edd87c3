"""Output of the commands, and how they fail: one sentence on stderr, exit code 1."""

from typing import NoReturn

import typer
from rich.console import Console


def fail(sentence: str) -> NoReturn:
    """Print a sentence on stderr and exit with code 1."""
    Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def fail_without_extra(command: str, error: ImportError) -> NoReturn:
    """Exit because the command needs packages of the extra `valence[local]`."""
    fail(f"{command} needs the extra valence[local] ({error.name} is missing).")


def echo(sentence: str) -> None:
    """Print a sentence on stdout, without wrapping it."""
    Console().print(sentence, markup=False, highlight=False, soft_wrap=True)
