"""Score a run, once or while it is trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.config import Views
from deepcnn.console import console
from deepcnn.data.formats.listings import shown

if TYPE_CHECKING:
    from deepcnn.inference.answered import Answered
    from deepcnn.inference.trained import Trained


@dataclass(frozen=True)
class Options:
    """Score the newest checkpoint of a run."""

    run: tyro.conf.Positional[Path | None] = None
    """Directory of the run; None: the newest below runs/."""
    split: Literal["train", "validation", "test"] | None = None
    """Which examples; None: those that the training was scored on."""
    averaged: bool = True
    """Use the moving averages of the parameters, where the run keeps them."""
    step: int | None = None
    """Step of the checkpoint; None: the newest."""
    data: str | None = None
    """Another labelled data set, or the run's own at another place: a name or a path."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the multiplications; bf16 is faster where the hardware has it."""
    views: Views | None = None
    """Over which views of an image answers are averaged, see deepcnn train --help; None: the run's.
    Nothing is written into the run then."""
    verbose: bool = False
    """Print how each class fares, too."""
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
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """A network of your own, named again as package.module:function: else its code does not run."""
    data_dir: Path | None = None
    """Folder of all data sets; None: the run's own."""
    json: bool = False
    """Print events as JSON, a line each."""


def run(options: Options) -> int:
    """Score the newest checkpoint, or one after the other."""
    from deepcnn.inference.evaluation import Scorer
    from deepcnn.runs.run import Run

    path = which_run(options.run)
    preset = Run.open(path).config().preset
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
            stream = sys.stderr if options.json else sys.stdout
            _print_classes(*scorer.answered(options.step), stream)
    return 0


def _print_classes(trained: Trained, answered: Answered, stream: TextIO) -> None:
    """Print precision, recall and F1 of each class."""
    names = trained.trained_on.classes
    width = max(map(len, [*map(shown, names), "class"]))
    print(
        f"{'class':<{width}}  {'examples':>8}  {'right':>6}  precision  recall     F1", file=stream
    )
    for label, name in enumerate(names):
        given, said = answered.labels == label, answered.predicted == label
        right = int((given & said).sum())
        precision = right / said.sum() if said.any() else 0.0
        recall = right / given.sum() if given.any() else 0.0
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        print(
            f"{shown(name):<{width}}  {given.sum():>8,}  {right:>6,}  {precision:>9.3f}  "
            f"{recall:>6.3f}  {f1:.3f}",
            file=stream,
        )
