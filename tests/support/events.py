"""Readers of the event stream: the examples of docs/events.md, as they stand there."""

import itertools
import json
import re
import threading
from pathlib import Path
from typing import Any, Self

import redis

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
STREAM = "valence:events"

Published = list[tuple[str, dict[str, str]]]


def examples() -> dict[str, Any]:
    """The functions of the page's Python, by name."""
    names: dict[str, Any] = {}
    for block in re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


class Stopped(Exception):
    """A consumer died, in the middle of something."""


class _Client(redis.Redis):
    """Dies with its reader."""

    stopping: threading.Event

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        if self.stopping.is_set():
            raise Stopped
        return super().execute_command(*arguments, **options)


class Reader(threading.Thread):
    """A consumer in a thread: what it handled, in order. Another can go on where it died."""

    def __init__(self, url: str, *, group: str = "", handled: Published | None = None):
        super().__init__(daemon=True)
        self.handled: Published = handled if handled is not None else []
        self._group = group
        self._stopping = threading.Event()
        self._client = _Client.from_url(url, decode_responses=True, socket_timeout=5)
        self._client.stopping = self._stopping
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    @property
    def last(self) -> str:
        return self.handled[-1][0] if self.handled else "0-0"

    def run(self) -> None:
        page = examples()
        try:
            if self._group:
                page["consume"](self._client, self._group, "one", lambda: self.last, self._handle)
            else:
                page["follow"](self._client, self.last, self._handle)
        except Stopped:
            self._client.close()

    def die(self) -> Published:
        """In the middle of whatever it does; returns what it had handled."""
        self._stopping.set()
        self.join(30)
        assert not self.is_alive()
        return self.handled

    def _handle(self, number: str, event: dict[str, str]) -> None:
        if self._stopping.is_set():
            raise Stopped
        if self._group and (number, event) in self.handled:
            return  # it died between this and telling Redis so
        self.handled.append((number, event))


def numbers(told: Published) -> list[int]:
    """The numbers of events, each of which must end in `-0`."""
    assert all(number.endswith("-0") for number, _ in told)
    return [int(number.removesuffix("-0")) for number, _ in told]


def judge_order(told: Published) -> None:
    """Numbers grow."""
    found = numbers(told)
    assert all(a < b for a, b in itertools.pairwise(found)), found


def stream(client: "redis.Redis") -> Published:
    """All that is in the stream."""
    return client.xrange(STREAM)


def about(told: Published, user_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """What was told of a user: type, subject and data."""
    return [
        (event["type"], event["subject_id"], json.loads(event["data"]))
        for _, event in told
        if event["user_id"] == user_id
    ]
