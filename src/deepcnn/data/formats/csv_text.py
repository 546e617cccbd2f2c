"""Comma-separated whole numbers, read with arrays: many lines at a time, no loop over values.

A text of whole lines is an array of bytes. The places of its commas and line ends tell the field of
each byte. The value of a field is its last digit, plus ten times the one before, plus a hundred
times the one before that. This is computed for all fields at once.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepcnn.errors import DataError

PIECE = 2**17  # bytes read at a time, so few that what is made of them stays in the cache
MAX_LINE = 2**23
# A compressed table of pictures shrinks to a third or a fiftieth. One that grows by more than this,
# beyond so much, would only take time.
MAX_RATIO, MAX_GROWN = 100, 2**26
COMMA, NEWLINE, ZERO = b",\n0"
MOST_SHOWN = 40  # characters of a field in an error

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    `count`: their number. `label`: the one with the labels, if any. `pixels`: those with the
    pixels, in order.
    """

    count: int
    label: int | None
    pixels: slice | list[int]


class Lines(NamedTuple):
    """Whole lines of a file, each ended by a line feed only.

    `start`: the offset of the first line in the unpacked file. `line`: its number, from 1 on.
    """

    start: int
    line: int
    text: bytes


def whole_lines(
    stream: io.BufferedIOBase, path: Path, start: int, line: int
) -> Generator[Lines, None, None]:
    """Yield the rest of a stream, whose position is `start`, some lines at a time.

    Lines may end in CR LF or in LF. Blank lines at the end of the file are left out. Raises
    DataError for a line that is too long, and for a gzip stream that holds far more than it should.
    """
    most = MAX_RATIO * path.stat().st_size + MAX_GROWN
    rest = b""
    while chunk := stream.read(max(PIECE, len(rest))):
        rest += chunk
        if start + len(rest) > most:
            raise DataError(
                f"{path}: expected a table that takes at most {most:,} bytes unpacked, found more. "
                "No table of pictures shrinks so far; the file may be hostile."
            )
        lines = rest[: rest.rfind(b"\n") + 1].rstrip(b"\r\n")
        if lines:
            end = len(lines) + (2 if rest.startswith(b"\r\n", len(lines)) else 1)
            yield Lines(start, line, _with_line_feeds(lines))
            start, line, rest = start + end, line + lines.count(b"\n") + 1, rest[end:]
        if len(rest) > MAX_LINE:
            raise DataError(
                f"{path}, line {line:,}: expected lines of at most {MAX_LINE:,} bytes, found a "
                "longer one. The file is damaged, or its images are too large for a table."
            )
    if last := rest.rstrip(b"\r\n"):
        yield Lines(start, line, _with_line_feeds(last))


def _with_line_feeds(text: bytes) -> bytes:
    """Return whole lines, the last one without its end, as lines that end in a line feed."""
    if b"\r" in text:  # found much faster than the two together
        text = text.replace(b"\r\n", b"\n")
    return text + b"\n"


def field_ends(lines: Lines, text: Bytes, columns: int, path: Path) -> Places:
    """Return where each field ends, at a comma or at the line's end: [lines, columns].

    Raises DataError, which names the first line with another number of columns.
    """
    breaks = text == NEWLINE
    line_ends = np.flatnonzero(breaks)
    breaks |= text == COMMA
    ends = np.flatnonzero(breaks)
    if len(ends) != len(line_ends) * columns or not np.array_equal(
        ends[columns - 1 :: columns], line_ends
    ):
        counts = np.diff(np.searchsorted(ends, line_ends, side="right"), prepend=0)
        bad = int(np.flatnonzero(counts != columns)[0])
        raise DataError(
            f"{path}, line {lines.line + bad:,}: expected {columns:,} columns, as in the first "
            f"line, found {counts[bad]:,}. Mend the line."
        )
    return ends.reshape(-1, columns)


def numbers(lines: Lines, text: Bytes, ends: Places, columns: Columns, path: Path) -> Bytes:
    """Return the values of the pixels' columns, uint8 [lines, pixels].

    Raises DataError, which names line and column, if a value is not a whole number of 0 to 255 in
    one to three digits.
    """
    digits = text - ZERO  # below 0 wraps around
    is_digit = digits < 10
    digits *= is_digit
    values = digits.astype(np.uint16)
    values[1:] += digits[:-1] * np.uint16(10)
    values[2:] += digits[:-2] * is_digit[1:-1] * np.uint16(100)
    flat = ends.reshape(-1)
    found = values[flat - 1].reshape(ends.shape)[:, columns.pixels]
    long = is_digit[3:] & is_digit[2:-1]
    long &= is_digit[1:-2]
    long &= is_digit[:-3]
    # Fields that end where they begin show as breaks side by side, and all that is no digit and no
    # break as bytes too many. A label may be like that; so then it is looked at more closely.
    side_by_side = np.count_nonzero(is_digit[1:] | is_digit[:-1]) < len(text) - int(is_digit[0])
    others = np.count_nonzero(is_digit) + len(flat) < len(text)
    if found.max() > 255 or others or side_by_side or long.any():
        sizes = (np.diff(flat, prepend=-1) - 1).reshape(ends.shape)[:, columns.pixels]
        odd = np.flatnonzero(~is_digit & (text != COMMA) & (text != NEWLINE))
        wrong = np.zeros(ends.shape, np.bool_)
        wrong.reshape(-1)[np.searchsorted(flat, odd)] = True
        wrong = wrong[:, columns.pixels] | (sizes < 1) | (sizes > 3) | (found > 255)
        if wrong.any():
            row, pixel = map(int, np.argwhere(wrong)[0])
            column = int(np.arange(columns.count)[columns.pixels][pixel])
            field = lines.text[starts_of(ends, column)[row] : ends[row, column]]
            raise DataError(
                f"{path}, line {lines.line + row:,}, column {column + 1:,}: expected a whole "
                f"number of 0 to 255, found {shown_field(field)}. Write each value as its digits "
                "alone."
            )
    return found.astype(np.uint8)


def label_codes(text: Bytes, starts: Places, stops: Places, known: dict[bytes, int]) -> Places:
    """Return which of the `known` texts each field is, int64 [lines]; new texts are added to them.

    The caller has checked the length of the fields, and that they hold no NUL.
    """
    width = max(1, int((stops - starts).max()))
    table = np.zeros((len(starts), width), np.uint8)
    for i in range(width):
        place = starts + i
        inside = place < stops
        table[inside, i] = text[place[inside]]
    texts, which = np.unique(table.reshape(-1).view(f"S{width}"), return_inverse=True)
    codes = [known.setdefault(each, len(known)) for each in texts.tolist()]
    return np.array(codes, np.int64)[which]


def starts_of(ends: Places, column: int) -> Places:
    """Return where the fields of a column start, int64 [lines]."""
    if column:
        return ends[:, column - 1] + 1
    return np.concatenate([[0], ends[:-1, -1] + 1])


def shown_field(field: bytes) -> str:
    """Return a field as errors show it."""
    return f"{field[:MOST_SHOWN]!r}"[1:] + "…" * (len(field) > MOST_SHOWN) if field else "nothing"
