"""A batch as it was uploaded: parsed, checked and split into chunks, but not stored yet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """Consecutive texts of a batch, the first at index `start`.

    `texts` is a JSON array of strings in UTF-8. `rows` is a JSON array of what else each text's row
    held, or None if no row held anything else.
    """

    start: int
    size: int
    texts: bytes
    rows: bytes | None


@dataclass(frozen=True)
class Submission:
    """An uploaded batch; `fingerprint` is the SHA-256 of its format, options and bytes."""

    format: str
    total: int
    chunks: list[Chunk]
    columns: list[str] | None
    text_column: int | None
    priority: int
    webhook_url: str | None
    fingerprint: bytes
