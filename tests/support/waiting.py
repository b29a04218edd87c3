"""Waiting for a condition, with a deadline and never for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, within: float, every: float = 0.05, what: str = "") -> T:
    """The first truthy value of `condition`; AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {within} s: {what or condition}"
        time.sleep(every)
