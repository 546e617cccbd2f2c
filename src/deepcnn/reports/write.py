"""Reports as files: a page, the same as JSON, and the answers to a whole split as CSV."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deepcnn
from deepcnn import atomic
from deepcnn.config import to_dict as settings_of
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.data.source import Source, Subset
from deepcnn.errors import DataError, RunError
from deepcnn.inference.export import Exported, Wanted, opened, record_of, writing
from deepcnn.reports import findings
from deepcnn.reports.against import Contender, compared
from deepcnn.reports.box import demo, demo_page
from deepcnn.reports.curves import Log
from deepcnn.reports.findings import Findings, Subject
from deepcnn.reports.packing import LIMIT, TRIED
from deepcnn.reports.page import render
from deepcnn.reports.views import rollbacks, view
from deepcnn.runs.log import read_log
from deepcnn.runs.run import ENVIRONMENT

NAME = "report.html"
LARGEST = 1 << 16  # rows of a CSV that are put together at a time


def write(subject: Subject, out: Path | None = None) -> Path:
    """Write the report about a run, and return its path; None: `report.html` in the run.

    Beside the page lie two files: the same content with the ending .json, and the answers to every
    example of the split with the ending .csv. Each file appears whole or not at all. Raises
    DataError if they cannot be written.
    """
    path = out if out is not None else subject.run.path / NAME
    found = findings.find(subject)
    try:
        log = read_log(subject.run.log)
    except RunError:  # it may be gone, and then only the curves are missing
        log = []
    html = render("report.html", view(subject, found, log, demo(subject.trained)))
    save(path.with_suffix(".csv"), _rows(subject, found))
    save(path.with_suffix(".json"), [_json(_twin(subject, found, log))])
    save(path, [html.encode()])
    return path


def write_comparison(contenders: list[Contender], out: Path) -> Path:
    """Write a page that compares two or more runs, and the same as JSON; return its path.

    Raises DataError if they cannot be written.
    """
    page, twin = compared(contenders)
    html = render("comparison.html", page)
    save(out.with_suffix(".json"), [_json({**_made(), **twin})])
    save(out, [html.encode()])
    return out


def export_html(wanted: Wanted) -> Exported:
    """Write the page in which a run's network answers by itself; no image of the run is needed.

    Raises ConfigError if a page cannot compute the network.
    """
    trained = opened(wanted)
    content = demo_page(trained).encode()
    with writing(wanted.out):
        atomic.write(wanted.out, content)
    record = record_of(wanted, "html", trained, len(content))
    return Exported(wanted.out, {**record, "examples": TRIED, "allowed_difference": LIMIT})


def save(path: Path, parts: Iterator[bytes] | list[bytes]) -> None:
    """Write a file atomically, with its folder; if it fails, raise a DataError with advice."""
    try:
        atomic.make_directory(path.parent)
        with atomic.writing(path) as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}). Free space, or choose "
            "another place: --out"
        ) from error


def _twin(subject: Subject, found: Findings, log: Log) -> dict[str, Any]:
    answered, config = subject.answered, subject.trained.config
    began_with = subject.trained.trained_on.began_with
    try:
        environment = subject.run.read(ENVIRONMENT)
    except RunError:
        environment = {}
    return {
        **_made(),
        "run": str(subject.run.path),
        "step": answered.step,
        "averaged": answered.averaged,
        "split": answered.split,
        "data": config.data,
        "scored_on": subject.scored_on,
        "began_with": began_with and began_with.to_dict(),
        **findings.to_dict(subject, found),
        "rollbacks": [dataclasses.asdict(each) for each in rollbacks(log)],
        "settings": settings_of(config),
        "environment": environment,
    }


def _made() -> dict[str, str]:
    now = datetime.datetime.now().isoformat(timespec="seconds")
    return {"deepcnn": deepcnn.__version__, "made": now}


def _json(values: dict[str, Any]) -> bytes:
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")  # bytes of paths that are no UTF-8


def _rows(subject: Subject, found: Findings) -> Iterator[bytes]:
    """Yield the lines of the CSV: what `predict` writes, and the given class."""
    names = subject.classes
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["path", "label", "probability", "unsure", "given", *(f"p_{n}" for n in names)])
    answers = zip(
        names_of(subject.source, subject.answered.split),
        found.predicted.tolist(),
        found.chances.tolist(),
        found.seen.doubts,
        subject.answered.labels.tolist(),
        strict=True,
    )
    for name, label, chances, doubt, given in answers:
        shown = [f"{chance:.9g}" for chance in chances]
        lines.writerow([name, names[label], shown[label], doubt or "", names[given], *shown])
        if text.tell() > LARGEST:
            yield text.getvalue().encode(errors="surrogateescape")
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode(errors="surrogateescape")


def names_of(source: Source, split: str) -> Iterator[str]:
    """Yield the name of each example: the path of its file, else the split and its number."""
    number = 0
    for shard in source.shards:
        chosen = shard.chosen.tolist() if isinstance(shard, Subset) else range(len(shard))
        inner = shard.shard if isinstance(shard, Subset) else shard
        for index in chosen:
            if isinstance(inner, PictureShard) and inner.paths is not None:
                yield str(inner.paths[index])
            else:
                yield f"{split}/{number}"
            number += 1
