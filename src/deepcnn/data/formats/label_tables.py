"""Tables that name the label of each picture file, as Kaggle's competitions have them.

https://www.kaggle.com/competitions/cifar-10/data is a flat folder of pictures, and a CSV. A list of
paths with labels, and perhaps with the split of each, is such a table, too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from deepcnn.data.formats.listings import (
    SUFFIXES,
    Listing,
    entries_of,
    few,
    label_of_each,
    leads_to_folder,
)
from deepcnn.data.splits import NAMES_OF_SPLITS, SPLITS, Split
from deepcnn.errors import DataError
from deepcnn.shown import shown

ID_COLUMNS = frozenset({"id", "image", "file", "filename", "file_name", "path", "image_id"})
LABEL_COLUMNS = frozenset({"label", "class", "target", "category"})
TABS = ".tsv"  # ends the name of a table whose columns have tabs between them
SPLIT_COLUMNS = frozenset({"split", "subset", "set", "partition"})

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # longer ones are text to sort


def _read_table(table: Path) -> str:
    """Return the text of a CSV file."""
    try:
        content = table.read_bytes()
    except OSError as error:
        raise DataError(f"{shown(table)}: cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{shown(table)}, line {line:,}: expected text in UTF-8, found the byte "
            f"0x{content[error.start]:02X} at offset {error.start:,}. Save the table as UTF-8."
        ) from error
    if "\0" in text:
        offset = text.index("\0")
        raise DataError(
            f"{shown(table)}, line {text.count(chr(10), 0, offset) + 1:,}: expected text, found a "
            "NUL byte. The file is damaged, or not a CSV in UTF-8."
        )
    return text


def _rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file that are not blank, with the line on which each ends."""
    tabs = table.name.lower().endswith(TABS)
    text = io.StringIO(_read_table(table), newline="")
    reader = csv.reader(text, delimiter="\t" if tabs else ",", strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{shown(table)}, line {reader.line_num:,}: expected comma-separated values, found: "
            f"{error}. Mend the line."
        ) from error


def _columns(header: Sequence[str]) -> tuple[int, int, int | None]:
    """Return the places of the identifiers, of the labels and of the splits."""
    names = [name.strip().lower() for name in header]
    named = next((i for i, name in enumerate(names) if name in ID_COLUMNS), None)
    label = next((i for i, name in enumerate(names) if name in LABEL_COLUMNS), None)
    if label is None:
        label = 0 if named == 1 else 1
    if named is None:
        named = 1 if label == 0 else 0
    others = (i for i, name in enumerate(names) if name in SPLIT_COLUMNS)
    return named, label, next((i for i in others if i not in (named, label)), None)


def _picture_names(folder: Path) -> dict[str, str]:
    """Return the file name that each identifier stands for: a file name, whole or without suffix.

    A whole name comes first, then the suffixes in the order of SUFFIXES.
    """
    names = [entry.name for entry in entries_of(folder) if not leads_to_folder(entry)]
    found = {name: name for name in names}
    for suffix in SUFFIXES:
        for name in names:
            if name.lower().endswith(suffix):
                found.setdefault(name[: -len(suffix)], name)
    return found


def number_first(text: str) -> tuple[bool, int, str]:
    """Order integers by value, before all other texts."""
    number = _INTEGER.fullmatch(text)
    return number is None, int(text) if number else 0, text


def _checked_columns(
    table: Path, line: int, header: Sequence[str], pictures: Mapping[str, str]
) -> tuple[int, int, int | None]:
    """Return the places that `_columns` tells, in a table that has a header."""
    if len(header) < 2:
        raise DataError(
            f"{shown(table)}, line {line:,}: expected a header of at least two columns, such as "
            f"id,label, found {len(header)}. Put the header first, and commas between the columns."
        )
    id_column, label_column, split_column = _columns(header)
    if header[id_column].strip().lower() not in ID_COLUMNS and header[id_column] in pictures:
        raise DataError(
            f"{shown(table)}, line {line:,}: expected a header such as id,label, found the "
            f"picture {header[id_column]!r}. Put a header first."
        )
    return id_column, label_column, split_column


Found = tuple[tuple[str, bool, int, str], Path, str]  # what sorts a row, its picture, its label


def list_table(
    table: Path, folder: Path, classes: Sequence[str] | None = None
) -> dict[Split | None, Listing]:
    """List the pictures of a folder whose labels a table holds, by split; None: no column says it.

    `table` is a CSV in UTF-8, with or without byte order mark, with a header of two columns or
    more. If its name ends in `.tsv`, it has tabs. Identifiers are in the first column whose header
    is one of ID_COLUMNS (in upper or lower case), else in the first column. Labels are in the first
    one of LABEL_COLUMNS, else in the second column. If both would be the same column, the one
    without a known header moves to the other column. A column of SPLIT_COLUMNS names the split of
    each row. The identifier `1` means the file `1`, or `1.png` and so on, in the order of SUFFIXES.
    It may name a deeper folder, with slashes, but none outside. A file that is not in `folder` is
    looked for beside the table. Pictures without a row are skipped.

    The classes are `classes`, or the distinct labels: integers by value, then the others by code
    points. Examples are ordered in the same way, by identifier without suffix. Raises DataError,
    which names file and line, for a table that is not of this form, for a row whose picture is
    missing or already named, and for a label that is not among `classes`.
    """
    found = _rows_by_split(table, folder, classes)
    if classes is None:
        labels = {label for rows in found.values() for *_, label in rows}
        classes = sorted(labels, key=number_first)
    label_of = label_of_each(classes)
    listings: dict[Split | None, Listing] = {}
    for split in (None, *SPLITS):
        if rows := sorted(found.get(split, ()), key=lambda row: (row[0], row[1].name)):
            numbers = np.array([label_of[label] for *_, label in rows], np.int64)
            files = tuple(str(path) for _, path, _ in rows)
            listings[split] = Listing(folder, files, numbers, tuple(classes))
    return listings


def _rows_by_split(
    table: Path, folder: Path, classes: Sequence[str] | None
) -> dict[Split | None, list[Found]]:
    """Return the rows of a table, each checked."""
    known = None if classes is None else label_of_each(classes)
    rows = _rows(table)
    line, header = next(rows, (1, []))
    names = {folder: _picture_names(folder)}
    id_column, label_column, split_column = _checked_columns(table, line, header, names[folder])
    lines: dict[Path, int] = {}
    found: dict[Split | None, list[Found]] = {}
    for line, row in rows:
        where = f"{shown(table)}, row {len(lines) + 1:,} on line {line:,}"
        if len(row) != len(header):
            raise DataError(
                f"{where}: expected {len(header)} columns as in the header, found {len(row)}. Mend "
                "the line; a comma inside a column needs quotes around it."
            )
        identifier, label = row[id_column], row[label_column]
        path = _picture((folder, table.parent), identifier, names, where)
        if path in lines:
            raise DataError(
                f"{where}: expected each picture once, found the id {identifier!r} again, which "
                f"line {lines[path]:,} has. Remove one of the two rows."
            )
        if not label or (known is not None and label not in known):
            expected = "a label" if known is None else f"one of the labels {few(list(known))}"
            raise DataError(
                f"{where}: expected {expected}, found {label!r} for the id {identifier!r}. Mend or "
                "remove the row."
            )
        lines[path] = line
        split = None if split_column is None else _split(row[split_column], where)
        stem = path.stem if path.name.lower().endswith(SUFFIXES) else path.name
        some = found.setdefault(split, [])
        some.append(((str(path.parent), *number_first(stem)), path, label))
    if not lines:
        raise DataError(
            f"{shown(table)}, line {line:,}: expected rows after the header, found none."
        )
    return found


def _split(text: str, where: str) -> Split:
    """Return the split that a row names."""
    try:
        return NAMES_OF_SPLITS[text.strip().lower()]
    except KeyError as error:
        raise DataError(
            f"{where}: expected a split, one of {', '.join(NAMES_OF_SPLITS)}, found {text!r}. Mend "
            "the row."
        ) from error


def _picture(
    folders: Sequence[Path], identifier: str, names: dict[Path, dict[str, str]], where: str
) -> Path:
    """Return the file that an identifier means, in the first of `folders` that has it.

    `names` keeps what is known about each folder.
    """
    foreign = PureWindowsPath(identifier)  # takes slashes and backslashes alike
    if foreign.anchor or ".." in foreign.parts:
        raise DataError(
            f"{where}: expected the id of a picture inside {shown(folders[0])}, found "
            f"{identifier!r}, which leads out of it. The table may be hostile; do not use it "
            "unread."
        )
    inside = PurePosixPath(identifier)
    complaint: DataError | None = None
    for folder in folders:
        parent = folder / inside.parent
        try:
            if parent not in names:
                names[parent] = _picture_names(parent)
        except DataError as error:
            complaint = complaint or error
            names[parent] = {}
        if inside.name in names[parent]:
            return parent / names[parent][inside.name]
    if complaint is not None:
        raise DataError(
            f"{where}: the id {identifier!r} cannot be found. {complaint}"
        ) from complaint
    raise DataError(
        f"{where}: expected a picture for the id {identifier!r} in {shown(folders[0])}, found "
        "none. Add the picture or remove the row."
    )
