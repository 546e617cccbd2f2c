"""Train several seeds and settings, choose the best, and say how sure that is."""

from __future__ import annotations

import dataclasses
import datetime
import os
from dataclasses import dataclass
from pathlib import Path

import tyro

from deepcnn.cli.arguments import own_network, value_of, with_dashes
from deepcnn.cli.grids import GRID, Choice, check_varies, choices, taken_out
from deepcnn.cli.swept import showing
from deepcnn.cli.train import parse_options as parse_training
from deepcnn.config import Config
from deepcnn.console import console, program, say
from deepcnn.durations import seconds_of
from deepcnn.errors import ConfigError, RunError
from deepcnn.events import Listener, Noted
from deepcnn.machine import LARGEST_SHARE, cores, memory
from deepcnn.shown import printable, quoted
from deepcnn.sweep.plan import Plan, Setting, folder_name, read_plan, unfinished

OF_EACH = 2**31  # bytes of memory that a training may well take
HELD_OUT = 10  # a tenth of the training set, to choose by where the preset holds nothing out
NOT_OF_A_SWEEP = {
    "--run-dir": "--dir",
    "--overwrite": "--dir",
    "--more": "deepcnn train",
    "--devices": "--jobs",
    "--max-time": "--budget",
    "--log-device-placement": "deepcnn train",
}


@dataclass(frozen=True)
class Options:
    """Train several seeds, and with --grid several settings, and say how sure the best one is.

    Each run is a training of its own. With --grid the settings are scored on a validation split.
    Then the best one is trained once on everything and scored on the test set. If the sweep was
    killed, the same command goes on with it, and so does --resume. PRESET and every other FIELD are
    those of `deepcnn train`; see its help.
    """

    seeds: int = 5
    """Number of runs of each setting: with --seed and the seeds that follow it."""
    grid: tuple[str, ...] = ()
    """Settings to choose from, FIELD=VALUE,VALUE each; all combinations are trained."""
    final_seeds: int = 1
    """With --grid: how many times the best setting is trained on everything; 0: not at all."""
    budget: str | None = None
    """Time for the whole sweep: 20m, 1h30m, or seconds. As many seeds are trained as fit into
    it."""
    dir: Path | None = None
    """Folder of the sweep; None: an unfinished one of this command below runs/, or a new one."""
    resume: Path | None = None
    """Go on with the sweep in this folder."""
    jobs: int | None = None
    """Number of trainings at once, each with its share of the cores. None: on processors, as many
    as the cores and the memory allow; on another device, one."""
    report: bool = True
    """At the end, write comparison.html, which compares the runs with each other."""
    json: bool = False
    """Print one JSON object a line; the last one has the table."""
    base: tyro.conf.Suppress[Config | None] = None
    """All other arguments, as `train` reads them."""
    choices: tyro.conf.Suppress[tuple[Choice, ...]] = ()
    """The settings of the grid."""
    model: tyro.conf.Suppress[str | None] = None
    """Your own network, if this command itself names it."""


def parse_options(arguments: list[str]) -> Options:
    """Return the options; `train` reads the arguments that are not this command's."""
    rest, grid = taken_out(GRID, [with_dashes(argument) for argument in arguments])
    options, rest = tyro.cli(
        Options,
        prog="deepcnn sweep [PRESET] [--FIELD VALUE ...]",
        args=[*rest, *([GRID, *grid] if grid else [])],
        return_unknown_args=True,
    )
    for name, instead in NOT_OF_A_SWEEP.items():
        if any(argument.split("=")[0] == name for argument in rest):
            raise ConfigError(f"{name}: is not of a sweep; see {instead}")
    model = own_network(value_of("--model.name", rest))
    if options.resume is not None:
        others = [word for word in rest if word.startswith("-") or rest.index(word) == 0]
        others = [word for word in others if word.split("=")[0] != "--model.name"]
        if others or grid or options.dir or options.budget:
            raise ConfigError(
                "--resume goes on with what the sweep was told; leave out "
                f"{(others or ['--grid, --dir and --budget'])[0]}"
            )
        return dataclasses.replace(options, model=model)
    training = parse_training(rest)
    if training.chosen is not None:
        raise ConfigError(
            "--data without a preset lets train choose settings for the data and for a time; in a "
            "sweep they must be told. Name a preset, such as quick, or --steps"
        )
    base = training.config
    return dataclasses.replace(options, base=base, choices=choices(base, grid, rest), model=model)


def run(options: Options) -> int:
    """Sweep, and print what is found; return the exit status."""
    if "RANK" in os.environ:
        raise ConfigError("sweep starts processes of its own; start it without torchrun")
    _check(options)
    with console(options.json) as tell:
        if options.resume is not None:
            folder, plan = options.resume, _stored(options.resume, options.model)
        else:
            plan = _plan(options, tell)
            folder = options.dir or _folder(plan, tell)
    from deepcnn.sweep.running import Sweep

    threads = plan.settings[0].config.threads
    at_once = options.jobs or (1 if threads is None else max(1, cores() // threads))
    with showing(as_json=options.json) as show:
        sweep = Sweep(
            folder,
            plan,
            at_once=at_once,
            model=options.model,
            report=options.report,
            emit=show,
        )
        show.begin(sweep, at_once)
        try:
            found = sweep.run()
        except KeyboardInterrupt:
            again = f"{program('deepcnn')} sweep --resume {quoted(str(folder))}"
            show.say(f"Stopped; what was trained is saved. Go on with: {again}")
            raise
        show.end(found)
    if found.failed:
        say(
            printable(
                f"deepcnn: {len(found.failed)} of the runs failed: {', '.join(found.failed)}. "
            )
            + "What is finished is kept; the same command tries the others again.",
            to="stderr",
        )
    return 1 if found.failed else 0


def _check(options: Options) -> None:
    """Raise ConfigError for options that cannot be used."""
    for name, value, least in (
        ("--seeds", options.seeds, 1),
        ("--final-seeds", options.final_seeds, 0),
        ("--jobs", 1 if options.jobs is None else options.jobs, 1),
    ):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, found {value}")
    if options.budget is not None:
        seconds_of(options.budget, "--budget")


def _stored(folder: Path, model: str | None) -> Plan:
    """Return the plan of a sweep that goes on."""
    plan = read_plan(folder)
    if plan is None:
        raise RunError(f"{folder}: expected the folder of a sweep, with a sweep.json; found none")
    own = plan.settings[0].config.model.name
    if ":" in own and model != own:
        raise ConfigError(
            f"{folder}: trains a network of your own, {own}, whose code runs only where it is "
            f"named again: --model.name {own}"
        )
    return plan


def _plan(options: Options, tell: Listener) -> Plan:
    from deepcnn.runs.beginning import with_absolute_paths

    assert options.base is not None
    base = with_absolute_paths(options.base)
    jobs = options.jobs or _fitting(base, options.seeds * max(1, len(options.choices)))
    if jobs > 1 and base.threads is None:
        base = dataclasses.replace(base, threads=max(1, cores() // jobs))
    seeds = tuple(range(base.seed, base.seed + options.seeds))
    budget = None if options.budget is None else seconds_of(options.budget, "--budget")
    if not options.choices:
        return Plan((Setting("", {}, base),), seeds, 0, budget)
    held_out, has_test = _to_choose_by(base, options.choices, tell)
    final_seeds = min(options.final_seeds, len(seeds))
    if final_seeds and not has_test:
        tell(Noted(f"{base.data} has no test split, so the best setting is not trained again."))
        final_seeds = 0
    settings = []
    for number, (changes, config) in enumerate(options.choices, 1):
        config = dataclasses.replace(
            with_absolute_paths(config),
            threads=config.threads or base.threads,
            validation_size=held_out,
            evaluate_on=("validation",) if config.evaluate_on else (),
        )
        settings.append(Setting(folder_name(number, changes), changes, config))
    return Plan(tuple(settings), seeds, final_seeds, budget)


def _to_choose_by(base: Config, settings: tuple[Choice, ...], tell: Listener) -> tuple[int, bool]:
    """Return how many examples to hold out for the choice, and whether there is a test set."""
    from deepcnn.data.open import open_dataset

    dataset = open_dataset(base, emit=tell)
    check_varies(base, dataset, settings)
    has_test = "test" in dataset.own_splits
    if base.validation_size or "validation" in dataset.own_splits:
        return base.validation_size, has_test
    examples = len(dataset.split("train"))
    held_out = max(1, examples // HELD_OUT)
    tell(
        Noted(
            f"Settings are chosen on {held_out:,} of the {examples:,} training images, which are "
            "held out (--validation-size)."
        )
    )
    return held_out, has_test


def _folder(plan: Plan, tell: Listener) -> Path:
    """Return the folder of an unfinished sweep of the same command, else a new name."""
    runs = Path("runs")
    found = unfinished(plan, runs)
    if found is not None:
        tell(Noted(f"{found}: the same command began this sweep, and goes on with it."))
        return found
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{now}-sweep-{plan.settings[0].config.preset}"
    names = [name, *(f"{name}-{number}" for number in range(1, 1000))]
    return next(runs / each for each in names if not (runs / each).exists())


def _fitting(base: Config, trainings: int) -> int:
    """Return how many of so many trainings to make at once, if no option says it.

    One training for each core is faster than one after another with all cores (`benchmarks/run.py
    sweep_parallel`), as far as there is memory. On another device the trainings would have to share
    it.
    """
    from deepcnn.devices import Place

    if Place.choose(base.device, base.precision).device.type != "cpu":
        return 1
    room = memory()
    fit = cores() if room is None else min(cores(), int(LARGEST_SHARE * room / OF_EACH))
    return max(1, min(fit, trainings))
