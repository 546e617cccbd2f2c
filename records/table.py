"""Makes the tables of the records from their logs, so that no figure is typed by hand.

    .venv/bin/python records/table.py            # writes them
    .venv/bin/python records/table.py --check    # fails and names a file that is not as made

A table stands between two comments, in each record's README.md and in that of all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from scores import HERE, Group, Log, groups_of, interval, log_of, records, runs_of

from deepcnn.runs.log import events

VIEWS = {
    "one": "one view",
    "shifted": "six views",
    "unsure": "six views of the unsure",
    "ten": "ten views",
}


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    head, *body = ("| " + " | ".join(cells) + " |" for cells in (columns, *rows))
    return "\n".join([head, "|---" * len(columns) + "|", *body])


def by_seed(group: Group) -> str:
    """Return the table of a group's seeds."""
    columns = ("seed", "correct", "of", "accuracy", "95 % interval", group.timed)
    rows = [
        (
            score.run.removeprefix("seed-"),
            f"{score.correct}",
            f"{score.total}",
            f"{score.percent:.2f} %",
            interval(score.correct, score.total),
            f"{score.seconds:.1f} s",
        )
        for score in group.scores
    ]
    return markdown(columns, rows)


def over_time(log: Log) -> str:
    """Return the table of one run's scores at each step where it was scored."""
    scored = events(log, "Evaluated")
    kinds = sorted({(e["split"], not e["averaged"]) for e in scored}, key=lambda k: (k[1], k[0]))
    cells = {
        (e["step"], e["split"], not e["averaged"]): f"{e['correct'] / e['total']:.2%}".replace(
            "%", f" % ({interval(e['correct'], e['total'])})"
        )
        for e in scored
    }
    columns = [f"{split}, {'raw' if raw else 'averaged'}" for split, raw in kinds]
    rows = [
        (f"{step:,}", *(cells.get((step, *kind), "") for kind in kinds))
        for step in sorted({e["step"] for e in scored})
    ]
    return markdown(("step", *columns), rows)


def of_record(folder: Path) -> str:
    """Return what a record's page shows of its logs."""
    log = log_of(folder)
    record, *others = groups_of(log)
    first = runs_of(log)[record.scores[0].run]
    table = over_time(first) if len(events(first, "Evaluated")) > 1 else by_seed(record)
    rows = [
        (
            f"`{group.name}`",
            f"{len(group.scores)}",
            group.scores[0].split,
            group.accuracy(),
            f"{group.timed}: {group.seconds:,.1f} s",
        )
        for group in others
    ]
    columns = ("other runs", "n", "scored on", "accuracy", "median time")
    return "\n\n".join([table, record.summary(), *([markdown(columns, rows)] if rows else [])])


def row_of(folder: Path) -> tuple[str, ...]:
    """Return a record's line on the front page."""
    config, environment = (
        json.loads((folder / name).read_text()) for name in ("config.json", "environment.json")
    )
    record, *_ = groups_of(log_of(folder))
    views = VIEWS[config["inputs"].get("views", "one")]  # which is all that there was at first
    time = f"{record.timed}: {record.seconds:,.1f} s".removeprefix("whole process: ")
    return (
        f"[{folder.name}]({folder.name}/README.md)",
        f"`{config['preset']}`",
        f"{config['data']}, {record.scores[0].split}, {views}",
        f"{len(record.scores)}",
        record.accuracy() + ("" if record.has_mean else "; an observation"),
        f"{config['steps']:,}",
        time,
        f"{environment['cores']} cores, {environment['hardware']}, {environment['precision']}",
        folder.name[:10],
    )


def front_page() -> str:
    """Return the table of all records, by preset, then by date."""
    columns = ("record", "preset", "scored on", "n", "accuracy", "steps", "whole process, median")
    rows = sorted(map(row_of, records()), key=lambda row: (row[1], row[-1], row[0]))
    return markdown((*columns, "machine", "date"), rows)


def filled(text: str, table: str) -> str:
    """Return a page with a table between its markers."""
    before, begin, rest = text.partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- /table -->\n")
    assert begin, "no line <!-- table -->"
    assert end, "no line <!-- /table -->"
    return f"{before}{begin}\n{table}\n\n{end}{after}"


def main() -> None:
    """Write all tables, or check them."""
    check, stale = "--check" in sys.argv[1:], []
    pages = {folder / "README.md": of_record(folder) for folder in records()}
    for path, table in {**pages, HERE / "README.md": front_page()}.items():
        text = path.read_text()
        if filled(text, table) != text:
            stale.append(str(path.relative_to(HERE.parent)))
            if not check:
                path.write_text(filled(text, table))
    if check and stale:
        sys.exit(
            "not as made from the logs (python records/table.py makes them):\n" + "\n".join(stale)
        )


if __name__ == "__main__":
    main()
