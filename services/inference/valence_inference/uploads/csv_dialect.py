"""Detection of the delimiter of a CSV file from its first rows."""

import csv
import io
from typing import Final

DELIMITERS: Final = (",", ";", "\t", "|")
SAMPLE_BYTES: Final = 16 * 1024
SAMPLE_ROWS: Final = 50


def sniff(sample: bytes, *, whole: bool) -> str:
    """Return the delimiter that gives all rows of the sample the same number of cells, above one.

    If several qualify, prefer the most columns, then the order of `DELIMITERS`. If the first row
    has one cell with every delimiter, the file has one column: return the first delimiter that
    splits no row. Otherwise the rows disagree, and reading them will report the line. Unless the
    sample is the `whole` file, its last row may be incomplete and is ignored.
    """
    text = sample.decode("utf-8", errors="replace")
    widths = {delimiter: _widths(text, delimiter, whole=whole) for delimiter in DELIMITERS}
    consistent = [d for d in DELIMITERS if len(set(widths[d])) == 1]
    if candidates := [d for d in consistent if widths[d][0] > 1]:
        return max(candidates, key=lambda d: widths[d][0])
    widest = max(DELIMITERS, key=lambda d: widths[d][:1])
    if widths[widest][:1] <= [1] and consistent:
        return consistent[0]
    return widest


def _widths(text: str, delimiter: str, *, whole: bool) -> list[int]:
    """Return the number of cells of each of the first rows; empty if they cannot be parsed."""
    widths: list[int] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if cells:
                widths.append(len(cells))
            if len(widths) > SAMPLE_ROWS:
                break
    except csv.Error:
        return []
    return widths if whole or len(widths) < 2 else widths[:-1]
