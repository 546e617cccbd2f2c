"""Prints what the program says: events as lines, with a bar on a terminal, or as JSON."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepcnn.durations import shown
from deepcnn.events import (
    Advanced,
    BeganWith,
    EnvironmentChanged,
    Evaluated,
    Event,
    Fetched,
    Fetching,
    Filling,
    Finished,
    Interrupted,
    Listener,
    Noted,
    Placed,
    Planned,
    Reading,
    Reported,
    RolledBack,
    SourceFailed,
    Started,
    Stepped,
    Traced,
    Waiting,
)
from deepcnn.intervals import described
from deepcnn.shown import in_ascii, one_line, printable, quoted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Stream = Literal["stdout", "stderr"]


@contextmanager
def console(
    as_json: bool,
    *,
    placement: bool = False,
    preset: str = "",
    to: Stream = "stdout",
) -> Iterator[Listener]:
    """Give a listener that prints: JSON, or lines, with a progress bar on a terminal.

    `placement`: also print what is on which device. `preset`: of the run; its reference may have
    lines of its own. `to`: where lines go.
    """
    if as_json:
        from deepcnn.runs.log import FOR_PICTURES, to_json

        def write(event: Event) -> None:
            if not isinstance(event, FOR_PICTURES):
                say(to_json(event))

        yield write
        return
    printer = _Console(placement, preset, to)
    try:
        yield printer
    finally:
        printer.close()


class _Console:
    def __init__(self, placement: bool, preset: str, to: Stream) -> None:
        self._placement = placement
        self._to = to
        self._towers = 0
        self._bar: _Bar | None = None
        self._reading_what = ""
        self._reading_told = 0.0
        self._reading_began = 0.0, 0  # when, and with how many done
        self._preset = preset  # two of them print like the reference's programs
        self._model = ""
        self._fetch_began: float | None = None
        self._fetch_told = 0.0
        self._left_told = time.monotonic()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, event: Event) -> None:
        match event:
            case Fetching():
                self._fetching(event)
            case SourceFailed():
                self.close()
                self._fetch_began = None  # the next source has a beginning and a speed of its own
                self._say(f"{event.dataset}: {event.source}: {event.reason}")
            case Fetched():
                self.close()
                self._say(f"{event.dataset}: complete and verified in {event.folder}")
            case Reading():
                self._reading(event)
            case Noted() | BeganWith() | RolledBack():
                self._say(event.text)
            case Filling():
                images = " ".join([str(event.examples), *event.data.split(), "images"])
                self._say(f"Filling queue with {images} before starting to train.")
            case Planned():
                self._planned(event)
            case Started():
                self._started(event)
            case Placed() if self._placement:
                self._say(_table(event.columns, event.rows))
            case Traced() if self._placement:
                rows = tuple((node.name, node.operation, node.device) for node in event.nodes)
                self._say(_table(("operation", "kind", "where"), rows))
            case EnvironmentChanged():
                self._say("Not the same bits as before, the environment changed:")
                for difference in event.differences:
                    self._say(f"  {difference}")
            case Advanced() if sys.stderr.isatty():
                if self._bar is None:
                    self._bar = _Bar("training", 1.0, beside="text", done=event.work)
                left = "" if event.seconds_left is None else f", {shown(event.seconds_left)} left"
                self._bar.move_to(event.work, f"{event.step}/{event.steps}{left}")
            case Stepped():
                self._stepped(event)
            case Evaluated():
                self._evaluated(event)
            case Waiting():
                self._say(f"{_now()}: waiting for the next checkpoint of {event.run}")
            case Interrupted():
                self.close()
                again = self._again(f"train --resume {quoted(event.run)}")
                reason = f"{event.reason}. " if event.reason else ""
                saved = "and saved" if event.saved else "without a checkpoint"
                self._say(f"{reason}Stopped {saved} at step {event.step}. Go on with: {again}")
            case Finished():
                self.close()
                self._say(f"Trained to step {event.step} in {event.seconds:.1f} s.")
                self._say(f"Run:            {event.run}")
                summaries = quoted(f"{event.run}/summaries")
                self._say(f"Look at it:     {program('tensorboard')} --logdir {summaries}")
                self._say(f"Evaluate again: {self._again(f'evaluate {quoted(event.run)}')}")
            case Reported():
                self._say(f"Report:         {event.path}")

    def _say(self, line: str) -> None:
        say(line, to=self._to)

    def _again(self, command: str) -> str:
        """Return a command about a run; your own network must be named again in it."""
        own = f" --model.name {quoted(self._model)}" if ":" in self._model else ""
        return f"{program('deepcnn')} {command}{own}"

    def _started(self, event: Started) -> None:
        self.close()
        self._preset = event.preset
        self._model = event.model
        self._towers = event.towers
        sharing = f", {_count(event.towers, 'tower')}" if event.towers else ""
        if event.processes > 1:
            sharing = f" in each of {event.processes} processes"
        self._say(
            f"{event.preset}: {event.parameters:,} parameters, {event.examples:,} examples, steps "
            f"{event.step:,} to {event.steps:,} of batch {event.batch_size}, {_epochs(event)}, on "
            f"{event.device} in {event.precision} with {_count(event.threads, 'thread')}{sharing}"
        )

    def _planned(self, event: Planned) -> None:
        self.close()
        for line in planned(event):
            self._say(line)

    def _stepped(self, event: Stepped) -> None:
        loss = event.losses["total_loss"]
        if self._preset == "mnist":
            self._say(f"Step {event.step}: loss = {loss:.2f} ({event.seconds:.3f} sec)")
            self._tell_time_left(event)
            return
        seconds = event.seconds / max(1, self._towers)  # a batch is a tower's, as it was
        left = self._time_left(event)
        self._say(
            f"{_now()}: step {event.step}, loss = {loss:.2f} "
            f"({event.examples_per_second:.1f} examples/sec; {seconds:.3f} sec/batch)"
            + (f", {left}" if left and self._preset != "tutorial" else "")
        )
        if self._preset == "tutorial":
            self._tell_time_left(event)

    def _time_left(self, event: Stepped) -> str:
        """Say how much time is left, if there is no bar to show it."""
        if event.seconds_left is None or sys.stderr.isatty():
            return ""
        return f"{shown(event.seconds_left)} left"

    def _tell_time_left(self, event: Stepped) -> None:
        """Say it once a minute, if the other lines are those of the reference's programs."""
        left = self._time_left(event)
        if left and time.monotonic() - self._left_told >= 60:
            self._left_told = time.monotonic()
            self._say(left)

    def _evaluated(self, event: Evaluated) -> None:
        if self._preset == "mnist":
            self._say(f"{_MNIST_TITLES[event.split]} Data Eval:")
            self._say(
                f"Num examples: {event.total}  Num correct: {event.correct}  "
                f"Precision @ 1: {event.accuracy:.4f}"
            )
            return
        if self._preset == "tutorial":
            kind = "averaged parameters" if event.averaged else "raw parameters"
            self._say(
                f"{_now()}: precision @ 1 = {event.accuracy:.3f} "
                f"({event.correct} / {event.total} correct, {event.split}, "
                f"step {event.step}, {kind}, loss = {event.loss:.3f})"
            )
            return
        kind = "averaged" if event.averaged else "raw"
        score = described(event.correct, event.total, f"{event.split} images")
        self._say(
            f"{_now()}: step {event.step}, accuracy {score}, loss = {event.loss:.3f}, {kind} "
            "parameters"
        )

    def _reading(self, event: Reading) -> None:
        now = time.monotonic()
        if self._reading_what != event.what or event.done == event.total:
            self.close()
            self._reading_what, self._reading_told = event.what, now
            self._reading_began = now, event.done
        elif sys.stderr.isatty():
            if self._bar is None and now - self._reading_told >= 0.5:  # not for what is quick
                self._bar = _Bar(event.what, event.total, beside="count", done=event.done)
            if self._bar is not None:
                self._bar.move_to(event.done)
        elif now - self._reading_told >= 5:  # seconds from line to line where there is no terminal
            self._reading_told = now
            began, done = self._reading_began
            self._say(f"{event.what}: {_so_far(event, now - began, event.done - done)}")

    def _fetching(self, event: Fetching) -> None:
        now = time.monotonic()
        if self._fetch_began is None:
            self._fetch_began = self._fetch_told = now
            self._say(f"Fetching {event.dataset} from {event.source}")
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = _Bar(event.dataset, event.total, beside="bytes", done=event.done)
            self._bar.move_to(event.done)
        elif now - self._fetch_told >= 5:  # seconds from line to line where there is no terminal
            self._fetch_told = now
            speed = event.done / 1e6 / max(now - self._fetch_began, 1e-3)
            left = (event.total or 0) / 1e6 - event.done / 1e6
            self._say(
                f"{event.done / 1e6:.1f} of {(event.total or 0) / 1e6:.1f} MB, {speed:.1f} MB/s, "
                f"{left / max(speed, 1e-3):.0f} s left"
            )


_MNIST_TITLES = {"train": "Training", "validation": "Validation", "test": "Test"}


class _Bar:
    """A progress bar on the terminal, on standard error; lines go to standard output above it.

    `beside`: what is shown beside the bar. This is how much of the total is done, as a count or in
    bytes with their speed, or a text from the caller.
    """

    def __init__(
        self,
        title: str,
        total: float | None,
        *,
        beside: Literal["count", "bytes", "text"],
        done: float,
    ) -> None:
        from rich import progress
        from rich.console import Console

        amount: dict[str, list[progress.ProgressColumn]] = {
            "count": [progress.MofNCompleteColumn()],
            "bytes": [progress.DownloadColumn(), progress.TransferSpeedColumn()],
            "text": [progress.TextColumn("{task.fields[text]}")],
        }
        self._progress: Progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            *amount[beside],
            *([] if beside == "text" else [progress.TimeRemainingColumn()]),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task: TaskID = self._progress.add_task(
            one_line(title),
            total=total,
            completed=done,  # type: ignore[arg-type]  # it takes shares as well
            text="",
        )
        self._progress.start()

    def move_to(self, done: float, text: str = "") -> None:
        self._progress.update(self._task, completed=done, text=text)

    def close(self) -> None:
        self._progress.stop()


def say(text: str, *, to: Stream = "stdout") -> None:
    """Print lines. All output of commands goes through here; no name in it commands a terminal.

    Characters that the terminal's encoding lacks are escaped, too. If the output goes to a full
    disk, the training does not end; the program reports it at the end.
    """
    # Looked up each time: while a bar is shown, what prints above it takes their place.
    file = sys.stdout if to == "stdout" else sys.stderr
    encoding = getattr(file, "encoding", None) or "utf-8"
    seen = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(seen, file=file, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def say_json(value: Any, **more: Any) -> None:
    """Print a value as JSON, in ASCII."""
    say(in_ascii(json.dumps(value, **more)))


def _so_far(event: Reading, seconds: float, done: int) -> str:
    """Say how far a pass is; `done`: the number of examples, which took these seconds."""
    if event.total is None:
        return f"{event.done:,}"
    left = (event.total - event.done) * seconds / max(1, done)
    return f"{event.done:,} of {event.total:,}, {left:.0f} s left"


def planned(event: Planned) -> list[str]:
    """Return lines about a plan: the images, the steps, the time, and what would save time."""
    height, width, channels = event.shape
    images = f"Plan: {_count(event.examples, 'image')} of {height}×{width}"
    if event.shape != event.original:
        factor = event.original[0] * event.original[1] / (height * width)
        images += f" ({event.original[0]}×{event.original[1]} as they lie there: "
        images += f"{factor:.0f} times the pixels)" if factor >= 1.5 else "brought to that size)"
    images += " in gray" if channels == 1 else ""
    images += f", {_count(event.classes, 'class', 'classes')}"
    if event.left_out:
        images += f"; there is no time to read {event.left_out:,} more"
    epochs = event.steps * event.batch_size / event.examples
    steps = f"{event.steps:,} steps of {event.batch_size} ({epochs:,.1f} epochs)"
    if event.growing and min(event.growing) < 1:
        steps += f", on images that grow from {100 * min(event.growing):.0f} % of each side"
    kind = "held-out" if event.split == "validation" else event.split
    steps += f"; scored on {_count(event.scored, f'{kind} image')}"
    if event.split == "validation":
        share = event.scored / (event.scored + event.examples + event.left_out)
        steps += f", {100 * share:.0f} % of all"
    steps += "" if event.views == "one" else f", over several views ({event.views})"
    after = event.scoring + event.report
    total = event.before + event.training + after
    time_ = (
        f"{shown(event.before)} are gone, training takes {shown(event.training)}, scoring and "
        f"report {shown(after)}: done after {shown(total)} of {shown(event.budget)}"
    )
    if event.enough:
        time_ += "; more would not help"
    lines = [f"{images}.", f"      {steps}.", f"      {time_}."]
    if event.reading and (event.left_out or 2 * event.reading > total):
        folder = f"{event.data.rstrip('/')}-read"
        lines += [
            f"      Reading took {shown(event.reading)}. To pay that once for many trainings: "
            f"{program('deepcnn')} data convert {quoted(event.data)} {quoted(folder)} --to npz"
        ]
    return lines


def _table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """Lay out a table in columns as wide as their widest entry."""
    rows = (columns, *rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _now() -> str:
    return datetime.datetime.now().isoformat(sep=" ")


def _epochs(event: Started) -> str:
    """Say how often a training sees each example: 2.9 epochs, 1 epoch."""
    epochs = f"{event.steps * event.batch_size / event.examples:,.2f}".rstrip("0").rstrip(".")
    return f"{epochs} epoch" if epochs == "1" else f"{epochs} epochs"


def _count(number: int, what: str, several: str = "") -> str:
    return f"{number} {what}" if number == 1 else f"{number:,} {several or what + 's'}"


def program(name: str) -> str:
    """Return the command for a program that is installed beside this Python."""
    ours = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found and Path(found).resolve() == ours.resolve():
        return name
    return quoted(os.path.relpath(ours)) if ours.exists() else name
