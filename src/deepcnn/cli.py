"""The command line: the only module that reads arguments or prints."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from deepcnn import __version__, presets
from deepcnn.config import Config
from deepcnn.errors import ConfigError, DataError, DeepcnnError
from deepcnn.events import (
    Advanced,
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
    Reading,
    SourceFailed,
    Started,
    Stepped,
    Waiting,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from deepcnn.bench import Pass, Report

# Modules that need torch are imported by the command that needs them: help must answer at once.

T = TypeVar("T")


@dataclass(frozen=True)
class Train:
    """Train a run, or go on with one, and score it."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """Directory for the run; None: a new one below runs/."""
    resume: Path | None = None
    """Go on with this run from its newest checkpoint."""
    overwrite: bool = False
    """Replace the run that --run-dir holds: delete its content."""
    devices: int | None = None
    """Processes to start on this machine, each with a device; for many machines see torchrun."""
    num_gpus: int | None = None
    """So many towers, and so many times the preset's batch, as in TensorFlow's tutorial."""
    log_device_placement: bool = False
    """Print a table of what lies on which device."""
    json: bool = False
    """Print events as JSON, a line each."""


@dataclass(frozen=True)
class Evaluate:
    """Score the newest checkpoint of a run."""

    run: tyro.conf.Positional[Path]
    """Directory of the run."""
    split: Literal["train", "validation", "test"] = "test"
    """Which examples."""
    averaged: bool = True
    """Use the moving averages of the parameters, where the run keeps them."""
    examples: int | None = None
    """Score only the first so many; None: all."""
    follow: bool = False
    """Score every newest checkpoint while the run is trained, and write summaries."""
    interval: float = 300.0
    """With --follow: seconds from one look for a new checkpoint to the next."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows. Beside a training choose
    another one than its own, or few --threads: memory and processor are shared."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    data_dir: Path | None = None
    """Folder of all data sets; None: the run's own."""
    json: bool = False
    """Print events as JSON, a line each."""


@dataclass(frozen=True)
class Bench:
    """Measure how fast this machine distorts, trains and scores, in about a minute.

    The data are CIFAR-10's where they are on disk, else synthetic ones of the same shape.
    """

    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True)
class Fetch:
    """Fetch a data set, verify every byte, and keep it for all runs."""

    name: tyro.conf.Positional[str] = "cifar10"
    """Name of the data set."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """An archive or a folder that you have; None: from the network."""
    data_dir: Path | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""


@dataclass(frozen=True)
class Verify:
    """Check the files of a data set against their SHA-256."""

    name: tyro.conf.Positional[str] = "cifar10"
    """Name of the data set."""
    data_dir: Path | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""


@dataclass(frozen=True)
class Show:
    """Count the examples of each class, and draw some of them on a sheet (PNG)."""

    data: tyro.conf.Positional[str] = "cifar10"
    """Name of a data set, or a path."""
    split: Literal["train", "validation", "test"] = "train"
    """Which examples."""
    out: Path | None = None
    """File for the sheet; None: NAME-SPLIT.png in the current directory."""
    image_size: tuple[int, int] | None = None
    """Height and width that pictures in folders are brought to; None: those most of them have."""
    skip_bad: bool = False
    """Leave out picture files that cannot be read, naming them."""
    data_dir: Path | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""


@dataclass(frozen=True)
class Convert:
    """Write a data set in another format, with all its splits, into a new folder.

    Read: CIFAR's binary version, MNIST's IDX, SVHN's .mat, TFRecord, .npz, pictures in class
    folders (root/class/*.png, or root/train/class/*.png with val and test), pictures with a table
    of labels (.csv).
    """

    source: tyro.conf.Positional[str]
    """Name of a data set, or a path."""
    target: tyro.conf.Positional[Path]
    """The new folder; --data reads it."""
    to: Literal["tfrecord", "npz", "folder", "cifar"]
    """The format. folder: PNG files in class folders; cifar: CIFAR-10's, for images of 32×32×3."""
    validation_size: int = 0
    """Training examples to split off for validation."""
    validation_choice: Literal["stratified", "first"] = "stratified"
    """Which of them: a random share of each class, or the first ones."""
    validation_seed: int = 0
    """Determines the random share."""
    shards: int = 1
    """Files that each split is divided into."""
    image_size: tuple[int, int] | None = None
    """Height and width that pictures in folders are brought to; None: those most of them have."""
    skip_bad: bool = False
    """Leave out picture files that cannot be read, naming them."""
    data_dir: Path | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""


def main() -> None:
    """Run the program `deepcnn` with the arguments it was started with."""
    try:
        sys.exit(_run(sys.argv[1:]))
    except DeepcnnError as error:
        if not error.told:
            print(f"deepcnn: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("deepcnn: stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"deepcnn {__version__}")
        return 0
    words = 2 if arguments[0] == "data" else 1
    command = " ".join(arguments[:words])
    if command in ("data", "data -h", "data --help"):
        print(_help())
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        raise ConfigError(
            f"there is no command {command!r}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + " See: deepcnn --help"
        )
    return COMMANDS[command](arguments[words:])


def _help() -> str:
    return f"""deepcnn {__version__}: trains small-image classifiers

  deepcnn train [PRESET] [--FIELD VALUE ...]   train a run and score it; presets:
{_presets()}
    (without a name: {presets.DEFAULT})
  deepcnn train --resume RUN                   go on with a run from its newest checkpoint
  deepcnn train ... --devices N                train in N processes on this machine
  deepcnn evaluate RUN [--follow]              score a run, once or while it is trained
  deepcnn bench [--json]                       measure how fast this machine trains and scores
  deepcnn data fetch [NAME] [--from PATH]      fetch and verify a data set
  deepcnn data verify [NAME]                   check a data set's files
  deepcnn data show [NAME or PATH]             count its classes and draw some images
  deepcnn data convert SOURCE FOLDER --to FORM write TFRecord, .npz, PNG folders or CIFAR's form

Every command explains its fields with --help."""


def _presets() -> str:
    """Return a line for each preset, with the first line of its docstring."""
    return "\n".join(
        f"    {name:<10} {(make.__doc__ or '').splitlines()[0]}"
        for name, make in presets.PRESETS.items()
    )


def _parse(command: str, kind: type[T], arguments: list[str]) -> T:
    return tyro.cli(kind, prog=f"deepcnn {command}", args=arguments)


def _train(arguments: list[str]) -> int:
    arguments = [_with_dashes(argument) for argument in arguments]
    preset = presets.DEFAULT
    named = bool(arguments) and not arguments[0].startswith("-")
    if named:
        preset, *arguments = arguments
        if preset not in presets.PRESETS:
            near = difflib.get_close_matches(preset, presets.PRESETS, n=1)
            raise ConfigError(
                f"there is no preset {preset!r}; expected one of {', '.join(presets.PRESETS)}."
                + (f" Did you mean {near[0]}?" if near else "")
            )
    resumed = _value_of("--resume", arguments)
    gpus = _value_of("--num-gpus", arguments)
    if resumed is None:
        config = presets.PRESETS[preset]()
        if gpus is not None and gpus.isdecimal() and int(gpus):  # else the parser complains below
            batch_size = config.batch_size * int(gpus)
            config = dataclasses.replace(config, towers=int(gpus), batch_size=batch_size)
    else:
        from deepcnn.run import Run

        if named:
            raise ConfigError(f"--resume goes on with the preset of the run; leave out {preset!r}")
        config = Run.open(Path(resumed)).config()
    options = tyro.cli(
        Train,
        prog="deepcnn train [PRESET]",
        description=f"{Train.__doc__} Presets (without a name: {presets.DEFAULT}):\n\n{_presets()}",
        args=arguments,
        default=Train(config),
    )
    if options.resume and (options.run_dir or options.overwrite):
        raise ConfigError(
            "--resume goes on in the run's own directory; leave out --run-dir and --overwrite"
        )

    if options.num_gpus is not None and (options.resume or options.num_gpus < 1):
        raise ConfigError(
            "--num-gpus changes the size of a batch, which a run keeps; use --towers"
            if options.resume
            else f"--num-gpus: expected at least 1, found {options.num_gpus}"
        )
    if options.num_gpus is not None and options.num_gpus != options.config.towers:
        raise ConfigError("--num-gpus says how many towers there are; leave out --towers")
    if options.devices is not None:
        if options.devices < 1:
            raise ConfigError(f"--devices: expected at least 1, found {options.devices}")
        if options.config.towers:
            raise ConfigError("--devices starts processes, --towers threads; leave out one of them")
        return _launch(options.devices, [*([preset] if named else []), *arguments])

    from deepcnn import training

    with _console(options.json, placement=options.log_device_placement) as tell:
        if options.resume:
            result = training.resume(options.resume, changes=lambda _: options.config, emit=tell)
        else:
            result = training.train(
                options.config, run_dir=options.run_dir, overwrite=options.overwrite, emit=tell
            )
    return 0 if result.evaluated else 128 + signal.SIGINT


def _launch(processes: int, arguments: list[str]) -> int:
    """Start this command once in each of several processes."""
    if "RANK" in os.environ:
        raise ConfigError("--devices starts processes, as torchrun does; leave out one of them")
    from deepcnn.engines import launch

    rest: list[str] = []
    for i, argument in enumerate(arguments):
        if argument.split("=")[0] != "--devices" and (i == 0 or arguments[i - 1] != "--devices"):
            rest.append(argument)
    return launch.launch(processes, ["train", *rest])


def _with_dashes(argument: str) -> str:
    """Spell a flag as here, --num_gpus like --num-gpus: the parser takes both."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _value_of(flag: str, arguments: list[str]) -> str | None:
    """Return the last value that is given for a flag, as the parser does."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            found = arguments[i + 1]
        if argument.startswith(flag + "="):
            found = argument.removeprefix(flag + "=")
    return found


def _evaluate(arguments: list[str]) -> int:
    options = _parse("evaluate", Evaluate, arguments)
    from deepcnn import evaluation

    with _console(options.json) as tell:
        scorer = evaluation.Scorer(
            options.run,
            options.split,
            averaged=options.averaged,
            examples=options.examples,
            device=options.device,
            threads=options.threads,
            data_dir=options.data_dir,
            emit=tell,
        )
        for event in scorer.follow(options.interval) if options.follow else [scorer.once()]:
            tell(event)
    return 0


def _bench(arguments: list[str]) -> int:
    options = _parse("bench", Bench, arguments)
    from deepcnn import bench

    if options.json:
        report = bench.measure(options.device, options.threads)
        print(json.dumps(dataclasses.asdict(report), indent=2))
        return 0
    with _console(as_json=False) as tell:
        _print_report(bench.measure(options.device, options.threads, emit=tell))
    return 0


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    about = report.environment
    rates = Table("images/s", report.data)
    rates.columns[1].justify = "right"
    for name, rate in report.rates.items():
        rates.add_row(name, f"{rate:,.0f}")
    layers = Table("layer", "forward", "of limit", "backward", "of limit")
    for column in layers.columns[1:]:
        column.justify = "right"
    for layer in report.layers:
        layers.add_row(layer.name, *_cells(layer.forward), *_cells(layer.backward))
    limits = report.limits
    console = Console(highlight=False)
    console.print(
        f"{about['hardware']}, {about['device']} in {about['precision']} with {about['threads']} "
        f"of {about['cores']} threads; torch {about['torch']}",
        rates,
        layers,
        f"The limit, {limits.best:,.0f} GFLOP/s, is the better of a large matrix product "
        f"({limits.matrix_product:,.0f}) and torch's 5×5 convolution ({limits.convolution:,.0f}).",
        "Operations are those of the definition: an algorithm that needs fewer may exceed 100 %.",
        sep="\n",
    )


def _cells(cost: Pass) -> tuple[str, str]:
    share = "" if cost.share is None else f"{100 * cost.share:.0f} %"
    return f"{cost.milliseconds:.2f} ms", share


def _fetch(arguments: list[str]) -> int:
    options = _parse("data fetch", Fetch, arguments)
    from deepcnn.data import datasets

    with _console(as_json=False) as tell:
        datasets.fetch(options.name, data_dir=options.data_dir, source=options.source, emit=tell)
    return 0


def _verify(arguments: list[str]) -> int:
    options = _parse("data verify", Verify, arguments)
    from deepcnn.data import datasets

    problems = datasets.verify(options.name, data_dir=options.data_dir)
    for path, problem in problems.items():
        print(f"{path}: {problem or 'whole'}")
    if any(problems.values()):
        raise DataError(
            f"{options.name} is not whole. Mend it with: deepcnn data fetch {options.name}"
        )
    return 0


def _show(arguments: list[str]) -> int:
    options = _parse("data show", Show, arguments)
    from deepcnn.data import contact_sheet, datasets
    from deepcnn.data.formats.listings import shown

    with _console(as_json=False) as tell:
        source = datasets.open_dataset(
            options.data,
            options.split,
            image_size=options.image_size,
            skip_bad=options.skip_bad,
            data_dir=options.data_dir,
            emit=tell,
        )
        found = contact_sheet.survey(source, datasets.reading(options.split, tell))
    height, width, channels = source.shape
    print(f"{options.data}, {options.split}: {len(source):,} images, {height}×{width}×{channels}")
    for name, count in zip(found.classes, found.counts, strict=True):
        print(f"  {count:>9,}  {shown(name)}")
    out = options.out or Path(f"{Path(options.data).name}-{options.split}.png")
    try:
        contact_sheet.draw(found).save(out)
    except (OSError, ValueError) as error:
        raise DataError(f"{out}: the sheet cannot be written ({error})") from error
    drawn = len(found.images)
    rest = f", the first {drawn} classes" if drawn < len(found.classes) else ""
    print(f"sheet: {out}{rest}")
    return 0


def _convert(arguments: list[str]) -> int:
    options = _parse("data convert", Convert, arguments)
    from deepcnn.data import convert

    with _console(as_json=False) as tell:
        counts = convert.convert(
            options.source,
            options.target,
            options.to,
            validation_size=options.validation_size,
            validation_choice=options.validation_choice,
            validation_seed=options.validation_seed,
            shards=options.shards,
            image_size=options.image_size,
            skip_bad=options.skip_bad,
            data_dir=options.data_dir,
            emit=tell,
        )
    found = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    print(f"{options.target}: {found}. Train on it: deepcnn train --data {options.target}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "bench": _bench,
    "data fetch": _fetch,
    "data verify": _verify,
    "data show": _show,
    "data convert": _convert,
}


@contextmanager
def _console(as_json: bool, *, placement: bool = False) -> Iterator[Listener]:
    """Give a listener that prints: JSON, or lines, with a progress bar on a terminal.

    `placement`: print what lies on which device, too.
    """
    if as_json:
        from deepcnn.summaries import FOR_PICTURES, to_json

        def write(event: Event) -> None:
            if not isinstance(event, FOR_PICTURES):
                print(to_json(event), flush=True)

        yield write
        return
    console = _Console(placement=placement)
    try:
        yield console
    finally:
        console.close()


class _Console:
    def __init__(self, *, placement: bool = False) -> None:
        self._placement = placement
        self._towers = 0
        self._bar: _Bar | None = None
        self._reading_what = ""
        self._reading_told = 0.0
        self._as_mnist = False  # print like the reference's MNIST program
        self._fetch_began: float | None = None
        self._fetch_told = 0.0

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
                _say(f"{event.dataset}: {event.source}: {event.reason}")
            case Fetched():
                self.close()
                _say(f"{event.dataset}: complete and verified in {event.folder}")
            case Reading():
                self._reading(event)
            case Noted():
                _say(event.text)
            case Filling():
                _say(f"Filling queue with {event.examples} images before starting to train.")
            case Started():
                self._started(event)
            case Placed() if self._placement:
                _say(_table(event))
            case EnvironmentChanged():
                _say("Not the same bits as before, the environment changed:")
                for difference in event.differences:
                    _say(f"  {difference}")
            case Advanced() if sys.stderr.isatty():
                if self._bar is None:
                    self._bar = _Bar("training", 1.0, shown="text", done=event.work)
                self._bar.move_to(event.work, f"{event.step}/{event.steps}")
            case Stepped() if self._as_mnist:
                loss = event.losses["total_loss"]
                _say(f"Step {event.step}: loss = {loss:.2f} ({event.seconds:.3f} sec)")
            case Stepped():
                seconds = event.seconds / max(1, self._towers)  # a batch is a tower's, as it was
                _say(
                    f"{_now()}: step {event.step}, loss = {event.losses['total_loss']:.2f} "
                    f"({event.examples_per_second:.1f} examples/sec; {seconds:.3f} sec/batch)"
                )
            case Evaluated() if self._as_mnist:
                _say(f"{_MNIST_TITLES[event.split]} Data Eval:")
                _say(
                    f"Num examples: {event.total}  Num correct: {event.correct}  "
                    f"Precision @ 1: {event.accuracy:.4f}"
                )
            case Evaluated():
                kind = "averaged parameters" if event.averaged else "raw parameters"
                _say(
                    f"{_now()}: precision @ 1 = {event.accuracy:.3f} "
                    f"({event.correct} / {event.total} correct, {event.split}, "
                    f"step {event.step}, {kind}, loss = {event.loss:.3f})"
                )
            case Waiting():
                _say(f"{_now()}: waiting for the next checkpoint of {event.run}")
            case Interrupted():
                self.close()
                _say(
                    f"Stopped and saved at step {event.step}. Go on with: "
                    f"{_program('deepcnn')} train --resume {event.run}"
                )
            case Finished():
                self.close()
                _say(f"Trained to step {event.step} in {event.seconds:.1f} s.")
                _say(f"Run:            {event.run}")
                _say(f"Look at it:     {_program('tensorboard')} --logdir {event.run}/summaries")
                _say(f"Evaluate again: {_program('deepcnn')} evaluate {event.run}")

    def _started(self, event: Started) -> None:
        self.close()
        self._as_mnist = event.preset == "mnist"
        self._towers = event.towers
        sharing = f", {event.towers} towers" if event.towers else ""
        if event.processes > 1:
            sharing = f" in each of {event.processes} processes"
        _say(
            f"{event.preset}: {event.parameters:,} parameters, {event.examples:,} examples, steps "
            f"{event.step:,} to {event.steps:,} of batch {event.batch_size}, on {event.device} in "
            f"{event.precision} with {event.threads} threads{sharing}"
        )

    def _reading(self, event: Reading) -> None:
        now = time.monotonic()
        if self._reading_what != event.what or event.done == event.total:
            self.close()
            self._reading_what, self._reading_told = event.what, now
        elif sys.stderr.isatty():
            if self._bar is None and now - self._reading_told >= 0.5:  # not for what is quick
                self._bar = _Bar(event.what, event.total, shown="count", done=event.done)
            if self._bar is not None:
                self._bar.move_to(event.done)
        elif now - self._reading_told >= 5:  # seconds from line to line where there is no terminal
            self._reading_told = now
            _say(f"{event.what}: {event.done:,} of {event.total:,}")

    def _fetching(self, event: Fetching) -> None:
        now = time.monotonic()
        if self._fetch_began is None:
            self._fetch_began = self._fetch_told = now
            _say(f"Fetching {event.dataset} from {event.source}")
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = _Bar(event.dataset, event.total, shown="bytes", done=event.done)
            self._bar.move_to(event.done)
        elif now - self._fetch_told >= 5:  # seconds from line to line where there is no terminal
            self._fetch_told = now
            speed = event.done / 1e6 / max(now - self._fetch_began, 1e-3)
            left = (event.total or 0) / 1e6 - event.done / 1e6
            _say(
                f"{event.done / 1e6:.1f} of {(event.total or 0) / 1e6:.1f} MB, {speed:.1f} MB/s, "
                f"{left / max(speed, 1e-3):.0f} s left"
            )


_MNIST_TITLES = {"train": "Training", "validation": "Validation", "test": "Test"}


class _Bar:
    """A progress bar on the terminal, on standard error; lines go to standard output above it.

    `shown` beside it: how much of the total is done, as a count or in bytes with their speed, or a
    text of the caller's.
    """

    def __init__(
        self,
        title: str,
        total: float | None,
        *,
        shown: Literal["count", "bytes", "text"],
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
            *amount[shown],
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task: TaskID = self._progress.add_task(
            title,
            total=total,
            completed=done,  # type: ignore[arg-type]  # it takes shares as well
            text="",
        )
        self._progress.start()

    def move_to(self, done: float, text: str = "") -> None:
        self._progress.update(self._task, completed=done, text=text)

    def close(self) -> None:
        self._progress.stop()


def _table(event: Placed) -> str:
    """Lay out a table in columns as wide as their widest entry."""
    rows = [event.columns, *event.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _now() -> str:
    return datetime.datetime.now().isoformat(sep=" ")


def _program(name: str) -> str:
    """Return what to type for a program installed beside this Python."""
    ours = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found and Path(found).resolve() == ours.resolve():
        return name
    return os.path.relpath(ours) if ours.exists() else name
