"""Find out how sure a network is, and when it says "unsure"."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.cli.importing import importing
from deepcnn.console import console, say, say_json


@dataclass(frozen=True)
class Options:
    """Find out how sure a trained network is, and when it should say "unsure".

    Training does so at its end, with an error of 0.02.
    """

    run: tyro.conf.Positional[Path | None] = None
    """Directory of the run. The result is stored in it. None: the newest run below runs/."""
    error: float = 0.02
    """Share of the sure answers that may be wrong. All other answers are called unsure."""
    data: str | None = None
    """Another labelled data set to calibrate on: a name or a path; None: the run's own."""
    split: Literal["train", "validation", "test"] | None = None
    """Which split to use; None: the one that the training was scored on."""
    step: int | None = None
    """Step of the checkpoint. None: the best one, if the run keeps it; else the newest."""
    averaged: bool = True
    """Use the moving averages of the parameters, if the run keeps them."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""
    json: bool = False
    """Print the result as one JSON object."""


def run(options: Options) -> int:
    """Calibrate, and say what was found."""
    with importing():
        from deepcnn.inference.evaluation import Scorer

    with console(as_json=False, to="stderr" if options.json else "stdout") as tell:
        scorer = Scorer(
            which_run(options.run),
            options.split,
            averaged=options.averaged,
            device=options.device,
            data=options.data,
            model=own_network(options.model),
            emit=tell,
        )
        found = scorer.calibrate(options.step, error=options.error)
    if options.json:
        say_json(dataclasses.asdict(found))
        return 0
    say(f"Found on {found.examples:,} {found.split} images, for step {found.step:,}:")
    if found.least_probability is None:
        say("  too few for a temperature or thresholds")
        return 0
    say(f"  temperature {found.temperature:.3f}")
    if found.least_probability > 1:
        say(f"  no answer is sure enough to be wrong in at most {found.error:.1%} of the cases")
    else:
        say(
            f"  at least {found.least_probability:.1%} sure: at most {found.error:.1%} of such "
            "answers are wrong"
        )
    return 0
