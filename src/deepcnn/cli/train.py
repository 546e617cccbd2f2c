"""Train a run, or go on with one, and score it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from deepcnn import presets
from deepcnn.cli.arguments import describe_presets, expect, own_network, value_of, with_dashes
from deepcnn.cli.importing import importing
from deepcnn.config import Config
from deepcnn.console import console
from deepcnn.durations import seconds_of
from deepcnn.errors import ConfigError
from deepcnn.stopping import status_of

NOT_SAVED = 4  # exit status of a training whose last step could not be saved


@dataclass(frozen=True)
class Options:
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
    """So many towers, each with a batch of --batch-size, as in TensorFlow's tutorial: a step has so
    many times as many examples. --towers divides a batch instead."""
    report: bool = True
    """Write report.html in the run at the end: what the network is worth, with a box to try it."""
    max_time: str | None = None
    """Save and end after this time, with status 0 and the command to go on with: 55m, 1h30m, or
    seconds. A step, or the images that are scored at a time, are finished first."""
    log_device_placement: bool = False
    """Print what lies on which device: variables, and the operations of a step."""
    launch: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The arguments themselves, for the processes that --devices starts."""
    model: tyro.conf.Suppress[str | None] = None
    """The network of one's own that is named in this very command."""
    json: bool = False
    """Print events as JSON, a line each."""


def parse_options(arguments: list[str]) -> Options:
    """Return the options: the fields of a preset, or of the run that is resumed, are defaults."""
    arguments = [with_dashes(argument) for argument in arguments]
    rest, preset = arguments, presets.DEFAULT
    named = bool(arguments) and not arguments[0].startswith("-")
    if named:
        preset, *rest = arguments
        expect("preset", preset, presets.PRESETS)
    resumed = value_of("--resume", rest)
    if resumed is not None and named:
        raise ConfigError(f"--resume goes on with the preset of the run; leave out {preset!r}")
    if value_of("--steps", rest) is not None and value_of("--epochs", rest) is not None:
        raise ConfigError("--steps and --epochs both say how long to train; leave out one of them")
    config = _config_of(resumed) if resumed is not None else _begun(preset, rest, named=named)
    options = tyro.cli(
        Options,
        prog="deepcnn train [PRESET]",
        description=(
            f"{__doc__} Presets (without a name: {presets.DEFAULT}):\n\n{describe_presets()}"
        ),
        args=rest,
        default=Options(config),
    )
    named_here = own_network(value_of("--model.name", rest))
    return dataclasses.replace(
        options, config=_of_each_gpu(options), launch=tuple(arguments), model=named_here
    )


def run(options: Options) -> int:
    """Train, here or in processes of their own."""
    _check(options)
    if options.devices is not None:
        return _launch(options.devices, options.launch)
    with importing():
        from deepcnn.training import start

    with console(options.json, placement=options.log_device_placement) as tell:
        if options.resume:
            result = start.resume(
                options.resume,
                changes=lambda _: options.config,
                model=options.model,
                report=options.report,
                max_time=options.max_time,
                emit=tell,
            )
        else:
            result = start.train(
                options.config,
                run_dir=options.run_dir,
                overwrite=options.overwrite,
                report=options.report,
                max_time=options.max_time,
                emit=tell,
            )
    if not result.saved:
        return NOT_SAVED
    return 0 if result.stopped is None else status_of(result.stopped)


def _preset(name: str, arguments: list[str]) -> Config:
    config = presets.PRESETS[name]()
    gpus = value_of("--num-gpus", arguments)
    if gpus is not None and gpus.isdecimal() and int(gpus):  # else the parser complains
        config = dataclasses.replace(config, towers=int(gpus))
    return config


def _begun(preset: str, arguments: list[str], *, named: bool) -> Config:
    """Return a preset; with --start-from that run's, unless it is named, and that run's widths."""
    start_from = value_of("--start-from", arguments)
    if start_from is None:
        return _preset(preset, arguments)
    from deepcnn.runs.beginning import config_of, with_widths_of

    parent = config_of(Path(start_from).expanduser())
    if not named and parent is not None and parent.preset in presets.PRESETS:
        preset = parent.preset
    config = _preset(preset, arguments)
    name = value_of("--model.name", arguments) or config.model.name
    return with_widths_of(config, start_from, name=name)


def _of_each_gpu(options: Options) -> Config:
    """Return the configuration with --batch-size counted once for each of --num-gpus."""
    config, gpus = options.config, options.num_gpus
    if gpus is None or gpus < 1 or options.resume:  # which are refused when it runs
        return config
    return dataclasses.replace(config, batch_size=config.batch_size * gpus)


def _config_of(run_dir: str) -> Config:
    from deepcnn.runs.run import Run

    return Run.open(Path(run_dir)).config()


def _check(options: Options) -> None:
    """Raise ConfigError for options that contradict each other."""
    if options.max_time is not None:
        seconds_of(options.max_time, "--max-time")
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


def _launch(processes: int, arguments: tuple[str, ...]) -> int:
    """Start this command once in each of several processes."""
    if "RANK" in os.environ:
        raise ConfigError("--devices starts processes, as torchrun does; leave out one of them")
    from deepcnn.team import launch

    rest: list[str] = []
    for i, argument in enumerate(arguments):
        if argument.split("=")[0] != "--devices" and (i == 0 or arguments[i - 1] != "--devices"):
            rest.append(argument)
    return launch.launch(processes, ["train", *rest])
