"""Tables of pixels: CSV with an image in each row, like Kaggle's digits and many other sets.

    label,pixel0,pixel1,…,pixel783
    1,0,0,…,0

A row is a label and the pixels of a square image, whole numbers of 0 to 255, row by row. If there
are three times as many, each pixel is its red, green and blue. A header may name the columns. Then
the label is in the column called `label`, `class`, `target` or `category`, and a column of row
numbers is skipped. Without a header or such a name, the label comes first. Labels are whole
numbers, the index of a class, or names. Lines end in LF or CR LF. Such a file may be compressed by
gzip.

A table without labels, such as Kaggle's `test.csv`, is not a split. It is left out, with a note;
`images_in` reads it.
"""

from __future__ import annotations

import gzip
import math
import re
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats import csv_text
from deepcnn.data.formats.csv_head import LEAST_SIDE, NUMBER, Head, head_of
from deepcnn.data.formats.csv_text import MAX_LINE, Columns, Lines
from deepcnn.data.formats.gzipped import opened
from deepcnn.data.formats.label_tables import number_first
from deepcnn.data.formats.listings import MAX_NAME_BYTES
from deepcnn.data.shards import Blocks, Shape, ToWrite, by, numbered_files
from deepcnn.data.splits import SPLITS, Opener, Split, group_by_split, split_of
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted
from deepcnn.shown import shown

NAME = "CSV of pixels"
SUFFIXES = (".csv", ".csv.gz")
MAX_CLASSES = 1 << 16
WRITTEN = 1 << 20  # bytes made at a time

_INDEX = re.compile(r"[0-9]{1,5}")


# All rows of a table, before its pixels are read


@dataclass(frozen=True)
class Scan:
    """What one pass over a table finds: the label of each row, and places to start reading at.

    `texts`: the labels that occur, each once. `codes`: uint16 [N], which of them each row has.
    `places`: for some rows, the index and the offset in the unpacked file, in order.
    """

    path: Path
    head: Head
    texts: tuple[str, ...]
    codes: NDArray[np.uint16]
    places: tuple[tuple[int, int], ...]
    seekable: bool

    @property
    def has_numbers(self) -> bool:
        """Whether all labels are numbers of classes."""
        return all(map(_INDEX.fullmatch, self.texts))

    def line_of(self, code: int) -> int:
        """Return the first line that has a label."""
        return self.head.line + int(np.argmax(self.codes == code))


def scan(path: Path, head: Head) -> Scan:
    """Read all labels of a table that has them, and check that its lines are alike.

    Raises DataError, which names the line, if lines differ, or if a label is neither the number of
    a class nor a name.
    """
    assert head.columns.label is not None
    known: dict[bytes, int] = {}
    texts: list[str] = []
    codes: list[NDArray[np.uint16]] = []
    places: list[tuple[int, int]] = []
    rows = 0
    with opened(path) as stream:
        stream.seek(head.start)
        with closing(csv_text.whole_lines(stream, path, head.start, head.line)) as pieces:
            for lines in pieces:
                found = _labels(lines, path, head.columns, known)
                for code, text in enumerate(list(known)[len(texts) :], len(texts)):
                    line = lines.line + int(np.argmax(found == code))
                    texts.append(_label_text(text, f"{path}, line {line:,}"))
                    if code == MAX_CLASSES:
                        raise DataError(
                            f"{path}, line {line:,}: expected at most {MAX_CLASSES:,} different "
                            f"labels, found one more, {texts[-1]!r}"
                        )
                codes.append(found.astype(np.uint16))
                places.append((rows, lines.start))
                rows += len(found)
        seekable = not isinstance(stream, gzip.GzipFile)
    if not rows:
        raise DataError(f"{path}, line {head.line}: expected rows after the header, found none.")
    return Scan(path, head, tuple(texts), np.concatenate(codes), tuple(places), seekable)


def _labels(
    lines: Lines, path: Path, columns: Columns, known: dict[bytes, int]
) -> NDArray[np.int64]:
    """Return which of the `known` texts the label of each line is, int64 [lines]."""
    assert columns.label is not None
    text = np.frombuffer(lines.text, np.uint8)
    ends = csv_text.field_ends(lines, text, columns.count, path)
    starts, stops = csv_text.starts_of(ends, columns.label), ends[:, columns.label]
    long = np.flatnonzero(stops - starts > MAX_NAME_BYTES)
    if long.size or b"\0" in lines.text:
        row = int(long[0]) if long.size else lines.text.count(b"\n", 0, lines.text.index(b"\0"))
        what = "a longer one" if long.size else "a NUL byte"
        raise DataError(
            f"{path}, line {lines.line + row:,}: expected text with labels of at most "
            f"{MAX_NAME_BYTES} bytes, found {what}. The file is damaged, or no table of pixels."
        )
    return csv_text.label_codes(text, starts, stops, known)


def _label_text(field: bytes, where: str) -> str:
    """Return a label, without quotes around it; raises DataError for text that is not a label."""
    try:
        text = field.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    is_number = NUMBER.fullmatch(text) and not _INDEX.fullmatch(text)
    if (
        not text
        or '"' in text
        or is_number
        or (_INDEX.fullmatch(text) and int(text) >= MAX_CLASSES)
    ):
        raise DataError(
            f"{where}: expected as its label a number of a class, 0 to {MAX_CLASSES - 1:,}, or a "
            f"name in UTF-8, found {csv_text.shown_field(field)}. Mend or remove the row."
        )
    return text


# Examples


class PixelCsvShard:
    """The rows of a table as images and labels: a `Shard`.

    `numbered`: whether labels are numbers of classes; else they are names of `classes`. Making a
    shard reads nothing, since `scan` has read the file once. In a gzip stream, all before `start`
    is unpacked.
    """

    def __init__(self, found: Scan, classes: tuple[str, ...], *, numbered: bool) -> None:
        self.name = str(found.path)
        self.shape = found.head.shape
        self.seekable = found.seekable
        self._found = found
        label_of = {name: label for label, name in enumerate(classes)}
        table = np.empty(len(found.texts), np.int64)
        for code, text in enumerate(found.texts):
            fits = _INDEX.fullmatch(text) if numbered else text in label_of
            if not fits:
                what = "the number of a class, as the first table has" if numbered else "a class"
                raise DataError(
                    f"{found.path}, line {found.line_of(code):,}: expected as its label {what}, "
                    f"found {text!r}. Mend or remove the row."
                )
            table[code] = int(text) if numbered else label_of[text]
        self._labels = table[found.codes]

    def __len__(self) -> int:
        return len(self._labels)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`, `size` at a time; see `Shard`."""
        images = np.empty((0, *self.shape), np.uint8)
        at, filled = start, 0
        with closing(self._rows(start)) as pieces:
            while at < stop:
                rows = next(pieces, None)
                if rows is None:
                    raise DataError(
                        f"{self.name}: expected {len(self):,} rows, found fewer. The file has "
                        "changed since it was opened; start again."
                    )
                while len(rows) and at < stop:
                    if not filled:
                        images = np.empty((min(size, stop - at), *self.shape), np.uint8)
                    some = rows[: len(images) - filled]
                    images.reshape(len(images), -1)[filled : filled + len(some)] = some
                    filled, rows = filled + len(some), rows[len(some) :]
                    if filled == len(images):
                        yield images, self._labels[at : at + filled].copy()
                        at, filled = at + filled, 0

    def _rows(self, start: int) -> Generator[NDArray[np.uint8], None, None]:
        """Yield the pixels of the rows from `start` on, some at a time: uint8 [k, pixels]."""
        places = self._found.places
        row, offset = places[bisect_right(places, start, key=lambda place: place[0]) - 1]
        with closing(_pixels(self._found.path, self._found.head, row, offset)) as pieces:
            for rows in pieces:
                yield rows[max(0, start - row) :]
                row += len(rows)


def _pixels(
    path: Path, head: Head, row: int, offset: int
) -> Generator[NDArray[np.uint8], None, None]:
    """Yield the pixels of all rows, from the row at an offset on: uint8 [k, pixels]."""
    with opened(path) as stream:
        stream.seek(offset)
        with closing(csv_text.whole_lines(stream, path, offset, head.line + row)) as pieces:
            for lines in pieces:
                text = np.frombuffer(lines.text, np.uint8)
                ends = csv_text.field_ends(lines, text, head.columns.count, path)
                yield csv_text.numbers(lines, text, ends, head.columns, path)


def images_in(path: Path) -> Generator[NDArray[np.uint8], None, None]:
    """Yield the image of each row of a table, with labels or without: uint8 [H, W, C].

    Raises DataError if the file is not a table of pixels.
    """
    head = head_of(path)
    if head is None:
        raise DataError(
            f"{shown(path)}: expected a table of pixels, a square image in each row, found "
            "something else. Give pictures as their own files."
        )
    with closing(_pixels(path, head, 0, head.start)) as pieces:
        for rows in pieces:
            yield from rows.reshape(-1, *head.shape)


# Recognizing and writing


def recognize(
    folder: Path, names: Sequence[str], classes: tuple[str, ...] | None, emit: Listener
) -> tuple[dict[Split, Opener], tuple[str, ...]] | None:
    """Return the splits and the classes of tables with these names, or None if none has pixels.

    `classes`: their names, if another file has them. The tables of the first split are read once,
    for their labels. `emit` hears what is left out.
    """
    plain = [n for n in names if n.removesuffix(".gz") not in set(names) - {n}]
    heads = {name: head_of(folder / name) for name in plain}
    if not any(heads.values()):
        return None
    usable: dict[Path, Head] = {}
    for name, head in heads.items():
        if head is not None and head.columns.label is not None:
            usable[folder / name] = head
        else:
            lacks = "a column of labels (deepcnn predict reads it)" if head else "pixels"
            emit(Noted(f"left out {shown(folder / name)}: a table without {lacks}"))
    if not usable:
        raise DataError(
            f"{shown(folder / plain[0])}: expected a column of labels, as in label,pixel0,…, found "
            "only pixels. What is on them: deepcnn predict RUN TABLE"
        )
    scans: dict[Path, Scan] = {}

    def scanned(path: Path) -> Scan:
        if path not in scans:
            scans[path] = scan(path, usable[path])
        return scans[path]

    first = min((split_of(path.name) for path in usable), key=SPLITS.index)
    tables = [scanned(path) for path in usable if split_of(path.name) == first]
    texts = {text for table in tables for text in table.texts}
    numbered = all(table.has_numbers for table in tables)
    if classes is None and numbered:
        classes = tuple(map(str, range(max(map(int, texts)) + 1)))
    known = classes or tuple(sorted(texts, key=number_first))
    found = group_by_split(
        folder,
        [path.name for path in usable],
        lambda path: PixelCsvShard(scanned(path), known, numbered=numbered),
    )
    return found, known


def why_not(shapes: Mapping[Split, Shape], classes: tuple[str, ...]) -> str | None:  # noqa: ARG001
    """Return why the format cannot hold images of these shapes, or None."""
    for height, width, channels in shapes.values():
        if height != width or height < LEAST_SIDE or channels not in (1, 3):
            return (
                f"expected square images of at least {LEAST_SIDE} by {LEAST_SIDE}, with 1 or 3 "
                f"channels, found {by((height, width, channels))}"
            )
        if 4 * height * width * channels + 8 > MAX_LINE:
            return f"expected images that take a line of at most {MAX_LINE:,} bytes, found larger"
    return None


def file_names(split: Split, shards: int) -> list[str]:
    """Return the names of a split's files."""
    return numbered_files(split, shards, "csv")


def write(file: BinaryIO, part: ToWrite) -> None:
    """Write examples as a file, with a header, and their labels as numbers."""
    pixels = (f",pixel{i}" for i in range(math.prod(part.shape)))
    file.write(b"label" + "".join(pixels).encode() + b"\n")
    texts = np.array([f",{value}".encode() for value in range(256)], "S4").view("<u4")
    for images, labels in part.blocks:
        row_bytes = 5 + 4 * math.prod(part.shape) + 1
        for i in range(0, len(labels), step := max(1, WRITTEN // row_bytes)):
            # Each field in as many bytes as the longest has; zeros, which fill it up, are left out.
            some = images[i : i + step]
            fields = np.zeros((len(some), row_bytes), np.uint8)
            fields[:, :5] = labels[i : i + step].astype("S5").view(np.uint8).reshape(-1, 5)
            fields[:, 5:-1] = texts[some.reshape(len(some), -1)].view(np.uint8)
            fields[:, -1] = ord("\n")
            file.write(fields[fields != 0].tobytes())
