"""How answers about pictures are written: a table, CSV, JSON, and copies in folders."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from deepcnn import atomic
from deepcnn.console import say
from deepcnn.data.formats.listings import folder_name
from deepcnn.errors import DataError
from deepcnn.inference.as_json import as_json
from deepcnn.inference.classifier import Prediction, Unread
from deepcnn.shown import one_line, printable, shown

PATH_WIDTH = 40
MOST_OF_A_NAME = 10_000
UNSURE = "unsure"  # the folder of those
DOUBTS = {"error": "too likely to be wrong", "unknown": "unlike all that was learned"}

Answer = Prediction | Unread
Writer = Callable[[Answer], None]

_NUMBER = re.compile(r"[+-]?[0-9.]*")  # and the sign alone, for standard input


@dataclass(frozen=True)
class Style:
    """How answers are written: `form` is table, csv, json or jsonl.

    `classes`: of the network; `top`: how many of them a table shows, None for all; `columns`: the
    width of the terminal for a table, None for lines of any length.
    """

    form: str
    classes: tuple[str, ...]
    top: int | None = None
    columns: int | None = None


@contextmanager
def writer(style: Style, out: Path | None) -> Iterator[Writer]:
    """Give what writes the answers one by one: to standard output, or a file that appears whole."""
    if out is None:
        on_terminal = sys.stdout.isatty()
        if on_terminal:
            style = replace(style, columns=shutil.get_terminal_size().columns)
        with _written(style, _to_terminal if on_terminal else sys.stdout.buffer.write) as write:
            yield write
        sys.stdout.flush()
        return
    try:
        if out.exists() and not out.is_file():  # a device would be replaced by a file
            raise DataError(f"{out}: expected a file for the answers, found something else")
        with atomic.writing(out) as file, _written(style, file.write) as write:
            yield write
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}). Free space, or choose another "
            "--out."
        ) from error


def _to_terminal(content: bytes) -> None:
    """Print text without what could command the terminal; a progress bar may stand below it."""
    text = printable(content.decode(errors="surrogateescape"))
    encoding = sys.stdout.encoding
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


@contextmanager
def _written(style: Style, put: Callable[[bytes], object]) -> Iterator[Writer]:
    if style.form == "json":
        put(b"[")
        separator = b"\n"

        def write_json(answer: Answer) -> None:
            nonlocal separator
            put(separator + _json(answer, style.classes).encode())
            separator = b",\n"

        yield write_json
        put(b"\n]\n")
        return
    if style.form == "csv":
        names = [f"p_{name}" for name in style.classes]
        put(_row(["path", "label", "probability", "unsure", *names]))
    lines: dict[str, Callable[[Answer], bytes]] = {
        "csv": _csv,
        "jsonl": lambda answer: (_json(answer, style.classes) + "\n").encode(),
        "table": lambda answer: _lines(answer, style).encode(errors="replace"),
    }

    def write(answer: Answer) -> None:
        if isinstance(answer, Unread) and style.form != "jsonl":
            say(f"deepcnn: {shown(answer.source)}: {answer.error}", to="stderr")
        else:
            put(lines[style.form](answer))

    yield write


def _json(answer: Answer, classes: tuple[str, ...]) -> str:
    text = json.dumps(as_json(answer, classes), ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _csv(answer: Answer) -> bytes:
    assert isinstance(answer, Prediction)
    chances = [f"{p:.9g}" for p in answer.probabilities.tolist()]
    return _row(
        [
            _no_formula(answer.source, "./"),  # the same file
            _no_formula(answer.label, "'"),
            f"{answer.probability:.9g}",
            answer.unsure or "",
            *chances,
        ]
    )


def _no_formula(text: str, before: str) -> str:
    """Return a cell, with a sign before it if a spreadsheet would compute it as a formula."""
    return before + text if text[:1] in tuple("=+-@") and not _NUMBER.fullmatch(text) else text


def _row(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(one_line, cells))
    return text.getvalue().encode()


def _lines(answer: Answer, style: Style) -> str:
    """Return the lines of a picture in a table: its path, then its likeliest classes."""
    assert isinstance(answer, Prediction)
    order = (-answer.probabilities).argsort(kind="stable")[: style.top].tolist()
    cells = [f"{shown(style.classes[i])} {answer.probabilities[i]:.1%}" for i in order]
    if answer.unsure:
        cells.append(f"unsure: {DOUBTS[answer.unsure]}")
    width, room = PATH_WIDTH, None
    if style.columns is not None:
        width = min(PATH_WIDTH, style.columns // 2)
        room = max(1, style.columns - width - 2)
    path = _short(shown(answer.source), width)
    found = ""
    for row in _rows(cells, room):
        found += f"{set_cell_size(path, width)}  {row}".rstrip() + "\n"
        path = ""
    return found


def _rows(cells: list[str], room: int | None) -> Iterator[str]:
    """Yield cells side by side, as many in a row as there is room for."""
    row = ""
    for cell in cells if room is None else (_short(cell, room) for cell in cells):
        longer = f"{row}  {cell}" if row else cell
        if row and room is not None and cell_len(longer) > room:
            yield row
            longer = cell
        row = longer
    yield row


def _short(text: str, width: int) -> str:
    """Return the end of a text that is wider than so many columns."""
    if cell_len(text) <= width:
        return text
    text = text[-width:]
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return "…" + text


def copy_into(root: Path, answer: Prediction) -> None:
    """Copy a picture into the folder of its class, or of the unsure ones; overwrite nothing."""
    source = Path(answer.source)
    folder = root / (UNSURE if answer.unsure else folder_name(answer.label))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as original:
            for number in range(MOST_OF_A_NAME):
                name = source.name if not number else f"{source.stem}-{number}{source.suffix}"
                with contextlib.suppress(FileExistsError):
                    copy = (folder / name).open("xb")
                    break
            else:
                raise DataError(
                    f"{folder}: holds {MOST_OF_A_NAME:,} pictures called {shown(source.name)}"
                )
            try:
                with copy:
                    shutil.copyfileobj(original, copy)
            except BaseException:
                (folder / name).unlink()
                raise
    except OSError as error:
        raise DataError(
            f"{folder}: {shown(source)} cannot be copied there ({error.strerror or error}). Free "
            "space, or choose another --sort-into."
        ) from error
