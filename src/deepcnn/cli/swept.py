"""What is shown of a sweep: on a terminal a table that is redrawn, else a line for each run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

from deepcnn.console import console, say
from deepcnn.durations import shown
from deepcnn.events import Event, Listener
from deepcnn.intervals import described
from deepcnn.shown import printable
from deepcnn.sweep.plan import FINAL, Row, not_told_apart

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from deepcnn.sweep.running import RunEnded, Sweep, Swept

COLUMNS = ("setting", "n", "mean", "deviation", "95 % interval", "")


class Show:
    """Listens to a sweep and prints; `tell` prints the events that other commands have, too."""

    def __init__(self, tell: Listener, *, as_json: bool) -> None:
        self._tell, self._json = tell, as_json
        self._sweep: Sweep | None = None
        self._live: Live | None = None

    def begin(self, sweep: Sweep, at_once: int) -> None:
        """Say what will be trained."""
        self._sweep = sweep
        plan = sweep.plan
        runs = len(plan.tasks())
        of = f"{len(plan.settings)} settings, " if len(plan.settings) > 1 else ""
        final = f", then the best on everything ({plan.final_seeds})" if plan.final_seeds else ""
        self.say(
            f"{of}{len(plan.seeds[: plan.kept])} seeds: {runs} runs in {sweep.folder}{final}; "
            f"{at_once} at once"
        )
        if sys.stderr.isatty() and not self._json:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
                refresh_per_second=4,
                get_renderable=lambda: self._drawn(sweep),
            )
            self._live.start()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from deepcnn.sweep.running import RunAdvanced, RunBegan, RunEnded

        if isinstance(event, RunAdvanced):
            return  # the table that is drawn asks the sweep itself
        if self._json:
            self._tell(event)
        elif isinstance(event, RunEnded):
            self.say(_line(event))
        elif not isinstance(event, RunBegan):
            self._tell(event)

    def say(self, text: str) -> None:
        """Print a line, above the table that is drawn."""
        if not self._json:
            say(printable(text))

    def end(self, found: Swept) -> None:
        """Print what a sweep has found."""
        self.close()
        if self._json:
            self._tell(found)
            return
        assert self._sweep is not None
        rows = self._sweep.rows()
        self.say("\n" + "\n".join(lines_of(rows)))
        if len(rows) > 1:
            self.say("\n" + _choice(rows))
        if final := self._sweep.final_rows():
            self.say("\nThe best setting, trained on everything:\n" + "\n".join(lines_of(final)))
        self.say(f"\nSweep:  {found.folder}")
        if found.report is not None:
            self.say(f"Report: {found.report}")

    def close(self) -> None:
        """Remove the table that is drawn."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _drawn(self, sweep: Sweep) -> Text:
        """Return the table as it is now, and how far each run is."""
        from rich.text import Text

        rows = sweep.final_rows() or sweep.rows()
        now = [f"{name}: {100 * work:.0f} %" for name, work in list(sweep.work.items())]
        return Text(
            printable("\n".join([*lines_of(rows), *now])), no_wrap=True, overflow="ellipsis"
        )


@contextmanager
def showing(*, as_json: bool) -> Iterator[Show]:
    """Give the object that shows a sweep."""
    with console(as_json) as tell:
        show = Show(tell, as_json=as_json)
        try:
            yield show
        finally:
            show.close()


def lines_of(rows: Sequence[Row]) -> list[str]:
    """Return the table in lines, and say what the accuracies were measured on."""
    cells = [COLUMNS, *(_cells(row, several=len(rows) > 1) for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(set_cell_size, each, widths)).rstrip() for each in cells]
    known = [score for row in rows for score in row.scores.values()]
    if known:
        lines.append(
            f"Accuracy on {known[0].total:,} {known[0].split} images; n: seeds; the interval is "
            "Student's, of the mean over seeds."
        )
    return lines


def _cells(row: Row, *, several: bool) -> tuple[str, ...]:
    found = row.spread
    count = f"{len(row.scores)} of {row.of}" if len(row.scores) < row.of else f"{row.of}"
    failed = f"{len(row.failed)} failed" if row.failed else ""
    mark = ", ".join(filter(None, ("best" if row.is_best and several else "", failed)))
    name = row.setting.described()
    if found is None:
        return (name, count, "–", "–", "–", mark)
    deviation = "–" if found.deviation is None else f"{100 * found.deviation:.2f}"
    interval = "–"
    if found.interval is not None:
        low, high = found.interval
        interval = f"{100 * low:.2f} to {100 * high:.2f} %"
    return (name, count, f"{100 * found.mean:.2f} %", deviation, interval, mark)


def _choice(rows: Sequence[Row]) -> str:
    """Say which setting is the best, and which others may be just as good."""
    best = next((row for row in rows if row.is_best and row.complete), None)
    if best is None:
        return "No setting has all its runs, so none is chosen."
    text = f"Best: {best.setting.described()}."
    others: list[Any] = not_told_apart(rows)
    if best.of == 1 and others:
        return f"{text} With one seed each, chance may have chosen; see --seeds."
    if others:
        names = "; ".join(row.setting.described() for row in others)
        return f"{text} No evidence that it is better than: {names}."
    return f"{text} Seed by seed it leads each of the others beyond chance (each for itself, 95 %)."


def _line(event: RunEnded) -> str:
    """Return the line of a run that has ended."""
    where = ", on everything" if event.run.startswith(f"{FINAL}/") else ""
    what = f"{event.setting}, seed {event.seed}{where}: "
    if event.failed is not None:
        return f"{what}failed: {event.failed}"
    assert event.correct is not None
    assert event.total is not None
    score = described(event.correct, event.total, f"{event.split} images")
    when = "finished before" if event.earlier else shown(event.seconds)
    return f"{what}{score}, {when}"
