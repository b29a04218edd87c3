"""Progress bars on stderr, if that is a terminal."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

Item = TypeVar("Item")


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Yield the items and show how many are done."""
    with _display(BarColumn(), MofNCompleteColumn()) as display:
        yield from display.track(items, description=description)


def run_with_spinner(description: str, function: Callable[[], Item]) -> Item:
    """Call a function and show the elapsed time."""
    with _display(SpinnerColumn()) as display:
        display.add_task(description, total=None)
        return function()


def _display(*columns: BarColumn | MofNCompleteColumn | SpinnerColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
