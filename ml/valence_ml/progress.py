"""How far long work has come: a bar on a terminal's stderr, and nothing anywhere else."""

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


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Yield the items, while showing how many are done."""
    with _display(BarColumn(), MofNCompleteColumn()) as display:
        yield from display.track(items, description=what)


def during(what: str, work: Callable[[], Item]) -> Item:
    """Do work whose length is not known, while showing for how long."""
    with _display(SpinnerColumn()) as display:
        display.add_task(what, total=None)
        return work()


def _display(*columns: BarColumn | MofNCompleteColumn | SpinnerColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
