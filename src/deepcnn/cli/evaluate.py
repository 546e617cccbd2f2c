"""Score a run, once or while it is trained."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.cli.importing import importing
from deepcnn.console import Stream, console, say
from deepcnn.errors import RunError
from deepcnn.intervals import interval
from deepcnn.settings import Views
from deepcnn.shown import shown

if TYPE_CHECKING:
    from deepcnn.inference.answered import Answered
    from deepcnn.inference.trained import Trained

_POLL_SECONDS = 0.5  # from one look for a run that has not begun to the next


@dataclass(frozen=True)
class Options:
    """Score the newest checkpoint of a run."""

    run: tyro.conf.Positional[Path | None] = None
    """Directory of the run; None: the newest below runs/."""
    split: Literal["train", "validation", "test", "extra"] | None = None
    """Which split to use; None: the one that the training was scored on."""
    averaged: bool = True
    """Use the moving averages of the parameters, if the run keeps them."""
    step: int | None = None
    """Step of the checkpoint; None: the newest."""
    data: str | None = None
    """Another labelled data set, or the run's own data at another place: a name or a path."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the multiplications. bf16 is faster if the hardware has it."""
    views: Views | None = None
    """Views of an image over which answers are averaged (see deepcnn train --help). None: the run's
    views. With others, nothing is written into the run."""
    verbose: bool = False
    """Also print precision, recall and F1 of each class."""
    examples: int | None = None
    """Score only this many examples, from the first one on; None: all."""
    follow: bool = False
    """While the run is trained, score each new checkpoint and write summaries. If the run has not
    begun yet, wait for it."""
    interval: float = 300.0
    """With --follow: seconds from one look for a new checkpoint to the next."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows. While a training runs,
    choose another device than the training's, or few --threads: both share memory and processor."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""
    data_dir: Path | None = None
    """Folder of all data sets; None: the run's own."""
    json: bool = False
    """Print events as JSON, one on each line."""


def run(options: Options) -> int:
    """Score the newest checkpoint, or one after the other."""
    from deepcnn.runs.run import Run

    path = _run_that_begins(options.run) if options.follow else which_run(options.run)
    preset = Run.open(path).config().preset
    with importing():
        from deepcnn.inference.evaluation import Scorer

    with console(options.json, preset=preset) as tell:
        scorer = Scorer(
            path,
            options.split,
            averaged=options.averaged,
            examples=options.examples,
            device=options.device,
            threads=options.threads,
            precision=options.precision,
            data=options.data,
            data_dir=options.data_dir,
            model=own_network(options.model),
            views=options.views,
            emit=tell,
        )
        if options.follow:
            for event in scorer.follow(options.interval):
                tell(event)
            return 0
        tell(scorer.once(options.step))
        if options.verbose:
            to: Stream = "stderr" if options.json else "stdout"
            _print_classes(*scorer.answered(options.step), to)
    return 0


def _run_that_begins(run: Path | None) -> Path:
    """Return a run once it has begun, None: the first below runs/; say once that it is awaited."""
    from deepcnn.runs.find import RUNS, all_runs, is_run

    told = False
    while not (is_run(run) if run is not None else all_runs()):
        for path in () if run is None else (run, *run.parents):
            if path.exists() and not path.is_dir():
                raise RunError(f"{path}: expected the directory of a run, found a file")
        if not told:
            where = f"a run below {RUNS}/" if run is None else str(run)
            say(f"deepcnn: waiting for {where}, which has not begun", to="stderr")
        told = True
        time.sleep(_POLL_SECONDS)
    return which_run(run)


def _print_classes(trained: Trained, answered: Answered, to: Stream) -> None:
    """Print precision, recall and F1 of each class, in percent."""
    from deepcnn.reports.measures import by_class, confusion

    classes = trained.trained_on.classes
    names = list(map(shown, classes))
    width = max(map(len, [*names, "class"]))
    head = f"{'class':<{width}}  {'examples':>8}  {'right':>7}  {'precision':>9}  "
    say(f"{head}{'recall (95 % interval)':>24}  {'F1':>7}", to=to)
    fares = by_class(confusion(answered.labels, answered.predicted, len(classes)))
    for name, each in zip(names, fares, strict=True):
        recall = f"{_percent(each.recall)} {interval(each.right, each.given)}".rstrip()
        say(
            f"{name:<{width}}  {each.given:>8,}  {each.right:>7,}  {_percent(each.precision):>9}  "
            f"{recall:>24}  {_percent(each.f1):>7}",
            to=to,
        )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
