"""How answers about pictures are written: a table, CSV, JSON, and copies in folders."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deepcnn import atomic
from deepcnn.data.formats.listings import folder_name, shown
from deepcnn.errors import DataError
from deepcnn.inference.as_json import as_json
from deepcnn.inference.classifier import Prediction, Unread

PATH_WIDTH = 40
UNSURE = "unsure"  # the folder of those

Answer = Prediction | Unread
Writer = Callable[[Answer], None]


@contextmanager
def writer(
    form: str, out: Path | None, classes: tuple[str, ...], top: int | None
) -> Iterator[Writer]:
    """Give what writes answers one by one, to a file that appears whole or to standard output.

    `form`: table, csv, json or jsonl; `top`: how many classes a table shows, None for all.
    """
    if out is None:
        with _written(form, sys.stdout.buffer, classes, top) as write:
            yield write
        sys.stdout.buffer.flush()
        return
    try:
        with atomic.writing(out) as file, _written(form, file, classes, top) as write:
            yield write
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error}). Free space, or choose another "
            "--out."
        ) from error


@contextmanager
def _written(
    form: str, file: BinaryIO, classes: tuple[str, ...], top: int | None
) -> Iterator[Writer]:
    if form == "json":
        file.write(b"[")
        separator = b"\n"

        def write_json(answer: Answer) -> None:
            nonlocal separator
            file.write(separator + _json(answer, classes).encode())
            separator = b",\n"

        yield write_json
        file.write(b"\n]\n")
        return
    if form == "csv":
        names = [f"p_{name}" for name in classes]
        file.write(_row(["path", "label", "probability", "unsure", *names]))
    lines: dict[str, Callable[[Answer], bytes]] = {
        "csv": _csv,
        "jsonl": lambda answer: (_json(answer, classes) + "\n").encode(),
        "table": lambda answer: (_line(answer, classes, top) + "\n").encode(errors="replace"),
    }

    def write(answer: Answer) -> None:
        if isinstance(answer, Unread) and form != "jsonl":
            print(f"deepcnn: {shown(answer.source)}: {answer.error}", file=sys.stderr)
        else:
            file.write(lines[form](answer))

    yield write


def _json(answer: Answer, classes: tuple[str, ...]) -> str:
    return json.dumps(as_json(answer, classes), ensure_ascii=False)


def _csv(answer: Answer) -> bytes:
    assert isinstance(answer, Prediction)
    chances = [f"{p:.9g}" for p in answer.probabilities.tolist()]
    return _row(
        [answer.source, answer.label, f"{answer.probability:.9g}", answer.unsure or "", *chances]
    )


def _row(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode(errors="surrogateescape")


def _line(answer: Answer, classes: tuple[str, ...], top: int | None) -> str:
    assert isinstance(answer, Prediction)
    order = (-answer.probabilities).argsort(kind="stable")[: top or len(classes)].tolist()
    each = [f"{shown(classes[i])} {answer.probabilities[i]:.1%}" for i in order]
    doubt = f"  unsure: {_DOUBTS[answer.unsure]}" if answer.unsure else ""
    return f"{_short(shown(answer.source)):<{PATH_WIDTH}}  {'  '.join(each)}{doubt}"


_DOUBTS = {"error": "too likely to be wrong", "unknown": "unlike all that was learned"}


def _short(path: str) -> str:
    return path if len(path) <= PATH_WIDTH else "…" + path[1 - PATH_WIDTH :]


def copy_into(root: Path, answer: Prediction) -> None:
    """Copy a picture into the folder of its class, or of the unsure ones; overwrite nothing."""
    source = Path(answer.source)
    folder = root / (UNSURE if answer.unsure else folder_name(answer.label))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(10_000):
            name = source.name if not number else f"{source.stem}-{number}{source.suffix}"
            try:
                with (folder / name).open("xb") as copy, source.open("rb") as original:
                    shutil.copyfileobj(original, copy)
                return
            except FileExistsError:
                continue
    except OSError as error:
        raise DataError(
            f"{folder}: {shown(source)} cannot be copied there ({error.strerror or error}). Free "
            "space, or choose another --sort-into."
        ) from error
    raise DataError(f"{folder}: holds 10,000 pictures called {shown(source.name)} already")
