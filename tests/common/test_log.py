"""Logs: one event a line, short values, no exception messages."""

import json
import logging
import sys

import pytest
import structlog

from valence_common import log

SECRET = "S3ntinel in a message"  # not a credential


def _events(logged: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in logged.readouterr().out.splitlines()]


@pytest.mark.parametrize("stdlib", [False, True])
def test_event_is_one_line(logged: pytest.CaptureFixture[str], *, stdlib: bool) -> None:
    """Line breaks, quotes and terminal codes in a value stay inside its JSON string."""
    log.configure("test")
    forged = '\r\n{"event":"forged"}\x1b[31m\u2028\x85\0"'
    if stdlib:
        logging.getLogger("library").warning("said %s", forged)
    else:
        structlog.get_logger().warning("said", value=forged)
    out = logged.readouterr().out
    assert 1 == out.count("\n")
    assert not {"\r", "\x1b", "\0", "\u2028", "\x85"} & set(out)
    event = json.loads(out)
    assert forged in (event["event"] if stdlib else event["value"])
    assert ("warning", "test") == (event["level"], event["service"])
    assert str(event["timestamp"]).endswith("Z")


@pytest.mark.parametrize("stdlib", [False, True])
def test_long_values_are_truncated(logged: pytest.CaptureFixture[str], *, stdlib: bool) -> None:
    """A client's megabyte is half a kilobyte in the log."""
    log.configure("test")
    if stdlib:
        logging.getLogger("library").warning("x" * 1_000_000)
    else:
        structlog.get_logger().warning("said", value="x" * 1_000_000)
    assert len(logged.readouterr().out) < 1000


def test_exception_messages_of_libraries_are_dropped(
    logged: pytest.CaptureFixture[str],
) -> None:
    """The type and location of the error are logged, its message is not."""
    log.configure("test")
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        logging.getLogger("library").exception("it failed")
        logging.getLogger("library").warning("again", exc_info=sys.exc_info())
        logging.getLogger("library").exception("raised %r", error)  # as Celery does
    for event in _events(logged):
        assert "ValueError" == event["error"]
        assert "test_log.py" in str(event["where"])
        assert SECRET not in json.dumps(event)
        assert "Traceback" not in json.dumps(event)


def test_levels_apply(logged: pytest.CaptureFixture[str]) -> None:
    """Records below the configured level are dropped, those of libraries too."""
    log.configure("test", level="WARNING")
    structlog.get_logger().info("quiet")
    logging.getLogger("library").info("quiet")
    structlog.get_logger().error("loud")
    assert ["loud"] == [event["event"] for event in _events(logged)]


def test_log_fields_are_short() -> None:
    """At most six frames, by file, line and function."""

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise KeyError(SECRET)

    with pytest.raises(KeyError) as caught:
        deep(50)
    described = log.log_fields(caught.value)
    assert "KeyError" == described["error"]
    assert 6 == len(described["where"])
    assert SECRET not in str(described)
