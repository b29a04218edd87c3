"""How clients write what several services take: times and plain texts; and how they read a hash."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]")


def _written_out(value: object) -> object:
    """pydantic also takes a bare number, or a day, for a time; nobody may be that ambiguous."""
    if value is not None and not (isinstance(value, str) and _TIME.match(value)):
        raise ValueError("must be an RFC 3339 time")
    return value


def _in_utc(value: datetime) -> datetime:
    """The same moment as Postgres takes it: it knows no offset beyond 16 hours."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999 in UTC") from None


def _in_hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


Timestamp = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
TextWithoutNul = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
HexDigest = Annotated[str | None, BeforeValidator(_in_hex)]
