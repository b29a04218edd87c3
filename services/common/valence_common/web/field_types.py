"""Types of request and response fields that several services use."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, StringConstraints

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]")


def _require_rfc3339(value: object) -> object:
    """Reject numbers and dates, which pydantic also accepts."""
    if value is not None and not (isinstance(value, str) and _TIME.match(value)):
        raise ValueError("must be an RFC 3339 time")
    return value


def _to_utc(value: datetime) -> datetime:
    """Convert to UTC: Postgres accepts no offset beyond 16 hours."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be between the years 1 and 9999 in UTC") from None


def _to_hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


Timestamp = Annotated[AwareDatetime, BeforeValidator(_require_rfc3339), AfterValidator(_to_utc)]
TextWithoutNul = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
HexDigest = Annotated[str | None, BeforeValidator(_to_hex)]
