"""Aligned columns, as Go's tabwriter makes them with minwidth 10, padding 3: what every list of Docker's looks like."""

from __future__ import annotations

_MIN_WIDTH, _PADDING = 10, 3


def align(text: str, *, min_width: int = _MIN_WIDTH, padding: int = _PADDING) -> str:
    """Replace the tabs of a text by spaces.

    A cell ends at a tab; a column is a run of adjacent lines that have such a cell, and is as wide as its widest.
    The text after a line's last tab is not part of any column.
    """
    rows = [line.split("\t") for line in text.split("\n")]
    widths = [[0] * (len(row) - 1) for row in rows]
    _measure(rows, widths, (0, len(rows)), 0, (min_width, padding))
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, cells, strict=False)) + row[-1]
        for row, cells in zip(rows, widths, strict=True)
    )


def _measure(
    rows: list[list[str]], widths: list[list[int]], lines: tuple[int, int], column: int, sizes: tuple[int, int]
) -> None:
    """Set the widths of column `column` and all to its right, in a range of lines; sizes: (least width, padding)."""
    start, end = lines
    min_width, padding = sizes
    line = start
    while line < end:
        if column >= len(rows[line]) - 1:
            line += 1
            continue
        first = line
        while line < end and column < len(rows[line]) - 1:
            line += 1
        width = max(min_width, *(len(rows[i][column]) + padding for i in range(first, line)))
        for i in range(first, line):
            widths[i][column] = width
        _measure(rows, widths, (first, line), column + 1, sizes)


def table(rows: list[list[str]]) -> str:
    """Rows of cells (the header first) as aligned lines, each ending in a newline."""
    return align("".join("\t".join(row) + "\n" for row in rows))
