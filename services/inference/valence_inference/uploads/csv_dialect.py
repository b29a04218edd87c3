"""Which character separates the cells of a CSV file, judged by its first rows."""

import csv
import io
from typing import Final

DELIMITERS: Final = (",", ";", "\t", "|")
SAMPLE_BYTES: Final = 16 * 1024
SAMPLE_ROWS: Final = 50


def sniff(sample: bytes, *, whole: bool) -> str:
    """The delimiter that gives all rows of the sample the same number of cells, more than one.

    Of several the one that gives most, then the more usual one. If the first row has one cell
    whatever the delimiter, it is a file of one column, and a delimiter that leaves all rows whole
    will do. Else the rows do not agree, and reading them will tell where. The last row of a sample
    that is not the `whole` file may be cut off.
    """
    text = sample.decode("utf-8", errors="replace")
    widths = {delimiter: _widths(text, delimiter, whole=whole) for delimiter in DELIMITERS}
    agreed = [d for d in DELIMITERS if len(set(widths[d])) == 1]
    if several := [d for d in agreed if widths[d][0] > 1]:
        return max(several, key=lambda d: widths[d][0])
    widest = max(DELIMITERS, key=lambda d: widths[d][:1])
    if widths[widest][:1] <= [1] and agreed:
        return agreed[0]
    return widest


def _widths(text: str, delimiter: str, *, whole: bool) -> list[int]:
    """How many cells the first rows would have; none if it cannot be read so."""
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
