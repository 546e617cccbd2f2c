"""Train a run, or go on with one, and score it."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from deepcnn import presets
from deepcnn.cli.arguments import describe_presets, expect, own_network, value_of, with_dashes
from deepcnn.cli.importing import importing
from deepcnn.config import Config, flat, to_dict
from deepcnn.console import console
from deepcnn.durations import running_for, seconds_of
from deepcnn.errors import ConfigError
from deepcnn.stopping import status_of

NOT_SAVED = 4  # exit status of a training whose last step could not be saved

if TYPE_CHECKING:
    from deepcnn.training.planning import Allowance

SAYS_STEPS = ("--steps", "--epochs", "--resume")
NOT_PLANNED = ("--start-from", "--more", "--feed", "--towers", "--num-gpus", "--devices")


@dataclass(frozen=True)
class Options:
    """Train a run, or go on with one, and score it."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    budget: str | None = None
    """Time that the whole command may take: 30s, 5m, 2h. It makes as many steps as fit into this
    time and still help. With --data, but without a preset, steps or epochs, all settings are chosen
    for the data, and None means 5m."""
    run_dir: Path | None = None
    """Directory for the run; None: a new one below runs/."""
    resume: Path | None = None
    """Go on with this run from its newest checkpoint."""
    more: Path | None = None
    """Train this finished run further, for the --budget (None: 5m). This makes a new run with the
    same settings. Images have their full size from the beginning, and the schedule starts again."""
    overwrite: bool = False
    """Replace the run in --run-dir: delete its content."""
    devices: int | None = None
    """Number of processes to start on this machine, each with a device. For many machines, use
    torchrun."""
    num_gpus: int | None = None
    """Number of towers, each with a batch of --batch-size, as in TensorFlow's tutorial. So a step
    has this many times --batch-size examples. --towers divides one batch instead."""
    report: bool = True
    """At the end, write report.html in the run: how good the network is, with a box to try it."""
    max_time: str | None = None
    """Save and end after this time: 55m, 1h30m, or seconds. The exit status is 0, and the command
    to go on with is printed. A step, or a block of images that is being scored, is finished
    first."""
    log_device_placement: bool = False
    """Print which device holds each variable and computes each operation of a step."""
    launch: tyro.conf.Suppress[tuple[str, ...]] = ()
    """The arguments themselves, for the processes that --devices starts."""
    model: tyro.conf.Suppress[str | None] = None
    """Your own network, if this command itself names it."""
    chosen: tyro.conf.Suppress[frozenset[str] | None] = None
    """If a recipe gives the settings: the names of the settings that were given here."""
    json: bool = False
    """Print events as JSON, one on each line."""


def parse_options(arguments: list[str]) -> Options:
    """Return the options. Defaults are the fields of a preset, or of the run that is resumed."""
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
    if value_of("--budget", rest) is not None:
        _check_budget(rest)
    more = value_of("--more", rest)
    if more is not None:
        _check_more(rest, named=named)
        config = _further(more)
    elif resumed is not None:
        config = _config_of(resumed)
    else:
        config = _begun(preset, rest, named=named)
    options = tyro.cli(
        Options,
        prog="deepcnn train [PRESET]",
        description=(
            f"{__doc__} With --data alone, the settings are chosen for the data and the --budget. "
            f"Presets (without a name: {presets.DEFAULT}):\n\n{describe_presets()}"
        ),
        args=rest,
        default=Options(config),
    )
    named_here = own_network(value_of("--model.name", rest))
    return dataclasses.replace(
        options,
        config=_of_each_gpu(options),
        launch=tuple(arguments),
        model=named_here,
        chosen=None if named else _chosen(rest),
    )


def _chosen(arguments: list[str]) -> frozenset[str] | None:
    """Return the names of settings among arguments, such as model.widths; None without a recipe.

    A recipe gives all other settings if data are given, and if no argument says how long to train
    or asks for something that cannot be planned.
    """
    flags = {argument.partition("=")[0] for argument in arguments}
    if value_of("--data", arguments) is None or flags & {*SAYS_STEPS, *NOT_PLANNED}:
        return None
    known = flat(to_dict(presets.PRESETS[presets.DEFAULT]()))
    found = set()
    for flag in flags:
        name = flag.removeprefix("--").replace("-", "_")
        group, dot, last = name.rpartition(".")
        found |= {name, group + dot + last.removeprefix("no_")}
    return frozenset(found & known.keys())


def _further(run_dir: str) -> Config:
    """Return the settings of a run that goes on with all that another one learned.

    Its images have their full size from the beginning, and it has a pace of its own.
    """
    config = _config_of(run_dir)
    whole = dataclasses.replace(config.inputs, scales=())
    return dataclasses.replace(config, start_from=run_dir, inputs=whole, pace=())


def _check_more(arguments: list[str], *, named: bool) -> None:
    """Raise ConfigError for options that contradict going on with a run."""
    flags = {argument.partition("=")[0] for argument in arguments}
    if named or flags & {"--resume", "--start-from"}:
        raise ConfigError(
            "--more goes on with all settings of a run, in a new one; leave out the preset, "
            "--resume and --start-from"
        )


def _check_budget(arguments: list[str]) -> None:
    """Raise ConfigError for options beside a budget that say how long to train."""
    for flag in (*SAYS_STEPS, "--devices"):
        if value_of(flag, arguments) is not None:
            why = {
                "--resume": "a run that is resumed has the steps that it had",
                "--devices": "steps are measured in one process",
            }.get(flag, "both say how long to train")
            raise ConfigError(f"--budget and {flag}: {why}; leave out one of them")


def run(options: Options) -> int:
    """Train, here or in processes of their own."""
    _check(options)
    if options.devices is not None:
        return _launch(options.devices, options.launch)
    with importing():
        from deepcnn.training import start

    budget = _allowance(options)
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
                budget=budget,
                run_dir=options.run_dir,
                overwrite=options.overwrite,
                report=options.report,
                max_time=options.max_time,
                emit=tell,
            )
    if not result.saved:
        return NOT_SAVED
    return 0 if result.stopped is None else status_of(result.stopped)


def _allowance(options: Options) -> Allowance | None:
    """Return the time that the command may take; it began with the process."""
    more = options.more is not None and not {"--steps", "--epochs"} & {
        argument.partition("=")[0] for argument in options.launch
    }
    if options.budget is None and options.chosen is None and not more:
        return None
    from deepcnn.training.planning import DEFAULT, Allowance

    seconds = seconds_of(options.budget or DEFAULT, "--budget")
    return Allowance(seconds, time.monotonic() - running_for(), options.chosen)


def _preset(name: str, arguments: list[str]) -> Config:
    config = presets.PRESETS[name]()
    gpus = value_of("--num-gpus", arguments)
    if gpus is not None and gpus.isdecimal() and int(gpus):  # else the parser complains
        config = dataclasses.replace(config, towers=int(gpus))
    return config


def _begun(preset: str, arguments: list[str], *, named: bool) -> Config:
    """Return a preset; with --start-from that run's widths, and its preset unless one is named."""
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
