"""Structured logs: one event a line on stdout, as JSON or readable text, with the request's id.

Events contain names, ids, numbers and durations, never submitted texts, credentials or SQL.
"""

import logging
import sys
import traceback
from typing import Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

MAX_VALUE = 512


def _truncate(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Shorten long values: a client may choose some of them, such as a path."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE:
            event[key] = value[:MAX_VALUE] + "…"
    return event


def configure(
    service: str, *, level: str = "INFO", style: Literal["json", "console"] = "json"
) -> None:
    """Send the records of structlog and of the standard library to stdout in one format."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _truncate,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=False)
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_without_exception, *shared],
            processors=[
                _add_service(service),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.error", "uvicorn.access", "httpx", "kombu", "amqp"):
        logging.getLogger(noisy).setLevel("WARNING")


def _add_service(service: str) -> structlog.typing.Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    return add


def _without_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Reduce an exception to its type and location: its message may quote SQL or a user's text.

    Celery also formats the exception into its own message, so only the template of that is kept.
    """
    record: logging.LogRecord | None = event.get("_record")
    if record is not None and record.exc_info:
        error = record.exc_info[1]
        record.exc_info, record.exc_text = None, None
        if error is not None:
            event.update(log_fields(error), event=str(record.msg))
    event.pop("exc_info", None)
    return event


def log_fields(error: BaseException) -> dict[str, object]:
    """Return an unexpected error as log fields: its type and stack, never its message."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "where": where}
