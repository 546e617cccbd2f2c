"""Find a learning rate, in a short training at growing rates."""

from __future__ import annotations

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from deepcnn import atomic
from deepcnn.cli.arguments import with_dashes
from deepcnn.cli.train import parse_options as parse_training
from deepcnn.config import Config
from deepcnn.console import console, program, say, say_json
from deepcnn.errors import ConfigError, DataError
from deepcnn.events import ignore

if TYPE_CHECKING:
    from deepcnn.training.rates import RangeTest

NOT_OF_A_TEST = (
    "--budget",
    *("--run-dir", "--resume", "--overwrite", "--devices", "--report", "--no-report"),
    "--log-device-placement",
)


@dataclass(frozen=True)
class Options:
    """Find a learning rate, in a short training at growing rates.

    It raises the rates of all layers together, from far too low to far too high. It shows how the
    loss changes, and suggests a rate. It leaves no run behind. PRESET and every other FIELD are
    those of `deepcnn train`; see its help.
    """

    lowest: float | None = None
    """Learning rate of the first step; None: 1/10,000 of the preset's."""
    highest: float | None = None
    """Learning rate of the last step; None: 100 times the preset's."""
    tries: int = 200
    """Number of steps of the test. More steps show more if a network learns slowly at first."""
    png: Path | None = None
    """File for a picture of the loss over the rates."""
    json: bool = False
    """Print one JSON object with all figures instead of text."""
    config: tyro.conf.Suppress[Config | None] = None
    """All other arguments, as `train` reads them."""


def parse_options(arguments: list[str]) -> Options:
    """Return the options; `train` reads the arguments that are not this command's."""
    arguments = [with_dashes(argument) for argument in arguments]
    options, rest = tyro.cli(
        Options,
        prog="deepcnn lr-find [PRESET] [--FIELD VALUE ...]",
        args=arguments,
        return_unknown_args=True,
    )
    for name in NOT_OF_A_TEST:
        if any(argument.split("=")[0] == name for argument in rest):
            raise ConfigError(f"{name}: lr-find keeps no run, in one process; leave it out")
    return dataclasses.replace(options, config=parse_training(rest).config)


def run(options: Options) -> int:
    """Make the test, and print what it found."""
    if "RANK" in os.environ:
        raise ConfigError("lr-find works in one process; start it without torchrun")
    if options.png is not None and options.png.suffix.lower() != ".png":
        raise ConfigError(f"--png: expected the name of a PNG file, found {options.png}")
    assert options.config is not None
    from deepcnn.reports.rates import Curve, as_png, as_text
    from deepcnn.training.rates import range_test

    with console(as_json=False) as tell:
        found = range_test(
            options.config,
            lowest=options.lowest,
            highest=options.highest,
            tries=options.tries,
            emit=ignore if options.json else tell,
        )
    curve = Curve(found.rates, found.losses, found.smoothed, _marks(found))
    if options.json:
        say_json(_as_json(found))
    else:
        say(f"{_title(found)}\n{as_text(curve)}\n\n{_reasoning(found)}")
    if options.png is not None:
        _write(options.png, as_png(curve, _title(found)))
    return 0


def _title(found: RangeTest) -> str:
    config = found.config
    return (
        f"{config.preset}: {config.optimizer.method}, {len(found.rates)} steps of batch "
        f"{config.batch_size} at growing rates"
    )


def _marks(found: RangeTest) -> list[tuple[float, str]]:
    if found.suggestion is None:
        return []
    steepest, lowest = found.rates[found.steepest], found.rates[found.lowest]
    return [(found.suggestion, "suggested"), (steepest, "steepest"), (lowest, "lowest loss")]


def _reasoning(found: RangeTest) -> str:
    """Say what is suggested, and why."""
    if found.suggestion is None:
        return "\n".join(found.remarks)
    lowest, steepest = found.rates[found.lowest], found.rates[found.steepest]
    lines = [
        f"lowest loss       at {lowest:.2g}, a tenth of which is {lowest / 10:.2g}",
        f"steepest descent  around {steepest:.2g}",
        f"suggestion        {found.suggestion:g}, the geometric mean of {lowest / 10:.2g} and "
        f"{steepest:.2g}",
        *found.remarks,
        "Train with it:",
        f"  {_command(found)}",
    ]
    return "\n".join(lines)


def _command(found: RangeTest) -> str:
    assert found.suggestion is not None
    from deepcnn.reports.commands import flags

    config = found.at(found.suggestion)
    return f"{program('deepcnn')} {shlex.join(['train', config.preset, *flags(config)])}"


def _as_json(found: RangeTest) -> dict[str, Any]:
    known = found.suggestion is not None
    return {
        "preset": found.config.preset,
        "suggestion": found.suggestion,
        "steepest": found.rates[found.steepest] if known else None,
        "lowest": found.rates[found.lowest] if known else None,
        "remarks": found.remarks,
        "command": _command(found) if known else None,
        "diverged": found.diverged,
        "rates": found.rates,
        "losses": found.losses,
        "smoothed": found.smoothed,
    }


def _write(path: Path, content: bytes) -> None:
    try:
        atomic.make_directory(path.parent)
        atomic.write(path, content)
    except OSError as error:
        raise DataError(f"{path}: the picture cannot be written ({error})") from error
