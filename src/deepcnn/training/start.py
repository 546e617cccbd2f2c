"""Where a training starts: a new run, or one that goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepcnn import presets
from deepcnn.config import Config, from_dict, to_dict
from deepcnn.data.enough import majority, senseless
from deepcnn.data.open import check_still_there
from deepcnn.durations import seconds_of
from deepcnn.errors import ConfigError
from deepcnn.events import Evaluated, Event, Listener, Noted, ignore
from deepcnn.inputs.fed import Fed, FeedSource
from deepcnn.models.build import BUILDERS, Given, name_of
from deepcnn.runs.beginning import with_absolute_paths, with_widths_of
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.team.join import join
from deepcnn.team.team import Team
from deepcnn.training.checks import check_changes
from deepcnn.training.loop import Result, make_steps
from deepcnn.training.plan import Plan
from deepcnn.training.planning import Allowance, allowance, check
from deepcnn.training.planning import plan as make_plan
from deepcnn.training.session import FromPython, Session

_BOTH = "steps and epochs both say how long to train; leave out one of them"


def train(
    config: Config | str | None = None,
    *,
    budget: str | float | Allowance | None = None,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    feed: FeedSource | Fed | str | None = None,
    model: Given | None = None,
    report: bool = False,
    progress: bool = False,
    max_time: str | float | None = None,
    emit: Listener = ignore,
    **settings: Any,
) -> Result:
    """Train a new run to its last step and score it.

    `config`: a configuration or the name of a preset. `settings`: fields of it to change, as in
    `train("quick", data="photos", epochs=3)`. With `start_from`, a preset takes the widths of that
    run if it trains the same kind of network. `budget`: the time that the whole training may take,
    in seconds or as a text such as "5m". As many steps are made as fit into it and still help. With
    `data`, but without a `config`, steps or epochs, as in `train(data="photos", budget="2m")`, all
    settings are chosen for the data, and the budget is 5 minutes if none is given.

    `run_dir`: where the run is kept; None: a new directory below `runs/`. `overwrite`: replace a
    run that is there. `report`: write `report.html` in the run at the end. `progress`: print what
    the command line prints. `feed`: where the batches come from instead of the training set (see
    `inputs.fed.Fed`), which then only gives the classes and the statistics. A name is the setting
    `feed`. `model`: your own network: an `nn.Module`, which is trained in place, or a function that
    makes one, or its name to import; see `models.build.build_given`.

    `emit` is called with every event. If it raises BrokenPipeError while steps are made, nobody
    listens any more, so the training saves and returns. It does the same after `max_time`, such as
    "55m", and at the first SIGINT, SIGTERM, SIGHUP or SIGUSR1; a second one stops it. Processes of
    torchrun each call this; they train together, and one writes and emits. What cannot be written
    is reported and tried again, see `Result.saved`. Raises a DeepcnnError for settings or data that
    cannot be used, a directory that is taken or cannot be written, and a loss that is not finite.
    """
    if isinstance(feed, str):
        feed, settings = None, settings | {"feed": feed}
    allowed = allowance(config, budget, settings)
    limit = _limit(max_time)
    config = _config(presets.DEFAULT if config is None else config, settings)
    with join() as team, _heard(emit, progress) as heard:
        emit = team.listener(heard)
        path = Path(run_dir) if run_dir else None
        config, given = _from_python(config, feed, model)
        given = dataclasses.replace(given, limit=limit)
        command = to_dict(config)
        begun = team.once(lambda: Run.of_job(team.job(), path, command))
        if begun is not None and not (overwrite and begun.is_finished()):
            emit(Noted(f"{begun.path}: the same job began this run, and goes on with it."))
            return _resume(team, begun, lambda c: c, given, emit, report=report)
        plan = None
        if allowed is not None:
            check(config, team, given)
            plan, material = make_plan(allowed, config, given, emit, report=report)
            config, given = plan.config, dataclasses.replace(given, material=material)
        with Session.open(team, config, given, emit) as session:
            session.begin(path, command, overwrite=overwrite)
            return _finished(session, plan, report=report)


def _from_python(
    config: Config, feed: FeedSource | Fed | None, model: Given | None
) -> tuple[Config, FromPython]:
    """Return the configuration to store, and beside it what no configuration can hold."""
    if model is None and config.model.name not in BUILDERS:
        model = config.model.name  # whoever calls names it here
    if model is not None:
        named = dataclasses.replace(config.model, name=name_of(model))
        config = dataclasses.replace(config, model=named)
    if feed is not None:
        config = dataclasses.replace(config, feed="fed")
    return with_absolute_paths(config), FromPython(None if feed is None else Fed.of(feed), model)


def resume(
    run_dir: str | Path,
    *,
    changes: Callable[[Config], Config] = lambda c: c,
    feed: FeedSource | Fed | None = None,
    model: Given | None = None,
    report: bool = False,
    progress: bool = False,
    max_time: str | float | None = None,
    emit: Listener = ignore,
) -> Result:
    """Go on with a run from its newest checkpoint, or from the start if it has none.

    The result equals that of a training that was never interrupted, bit for bit. This needs the
    same kind of device, versions, threads and processes; on a GPU the run must also be
    `deterministic`.

    `changes`: a function from the run's configuration to the one to go on with. Only settings that
    do not change the numbers (`checks.FREE_TO_CHANGE`) may differ, and `steps` only if nothing
    depends on their number. `feed`: needed again for a run that was fed from Python, as a function
    of the step or with its state restored. `model`: needed again for a network that is not one of
    this package. All else is as in `train`.
    """
    limit = _limit(max_time)
    with join() as team, _heard(emit, progress) as heard:
        run = team.once(lambda: Run.open(Path(run_dir)))
        given = FromPython(None if feed is None else Fed.of(feed), model, limit)
        return _resume(team, run, changes, given, team.listener(heard), report=report)


def _resume(
    team: Team,
    run: Run,
    changes: Callable[[Config], Config],
    given: FromPython,
    emit: Listener,
    *,
    report: bool,
) -> Result:
    identity = team.once(run.identity)  # before all else is read: it is asked for again
    old, stored = team.once(lambda: (run.config(), TrainedOn.read(run)))
    config = team.once(lambda: changes(old))
    if given.model is not None:  # checked against the checkpoint, not by its name
        config = dataclasses.replace(config, model=old.model)
    if config.epochs is not None and config.steps != old.steps:
        raise ConfigError(_BOTH)
    config = config.with_steps_for(sum(stored.counts["train"]))
    check_changes(old, config)
    if config.data == old.data:
        team.once(lambda: check_still_there(config.data))
    with Session.open(team, config, given, emit, stored) as session:
        session.go_on(run, stored.fed_by, identity)
        return _finished(session, report=report)


def _limit(max_time: str | float | None) -> float | None:
    return None if max_time is None else seconds_of(max_time, "max_time")


def _finished(session: Session, plan: Plan | None = None, *, report: bool) -> Result:
    """Make all steps. If the run was not interrupted, write its report."""
    result = make_steps(session, plan, report=report)
    if result.evaluated is not None:
        _warn(session, result.evaluated)
        if plan is not None:
            session.tell(Noted(f"The same run again: {_again(session)}"))
    if not report or result.evaluated is None:
        return result
    if session.team.any(session.stop.number is not None):  # it came when all was done and scored
        session.emit(Noted("No report: the program was asked to end."))
    else:
        session.judge.report()
    return result


def _warn(session: Session, scored: Evaluated) -> None:
    """Warn if a score means little."""
    counts = session.trained_on.counts
    warnings = senseless(session.trained_on.classes, counts)
    luck = majority(scored.split, scored.correct, counts.get(scored.split, ()))
    for text in [*warnings, *([luck] if luck else [])]:
        session.emit(Noted(f"Careful: {text}"))


def _again(session: Session) -> str:
    """Return the command for the same run, with its number of steps."""
    from deepcnn.reports.commands import repeating

    (_, command), *_ = repeating(session.config, session.run.path, fed=False)
    return command


def _config(config: Config | str, settings: dict[str, Any]) -> Config:
    """Return a configuration with some settings changed; raise ConfigError for unknown ones."""
    if isinstance(config, str):
        if config not in presets.PRESETS:
            raise ConfigError(
                f"there is no preset {config!r}; expected a Config or one of "
                f"{', '.join(presets.PRESETS)}"
            )
        config = presets.PRESETS[config]()
        if (start_from := settings.get("start_from")) is not None:
            config = with_widths_of(config, str(start_from), name=config.model.name)
    known = {field.name for field in dataclasses.fields(config)}
    if unknown := sorted(settings.keys() - known):
        raise ConfigError(f"{unknown[0]}: there is no such setting; see deepcnn.Config")
    if not settings:
        return config
    if "steps" in settings and settings.get("epochs", config.epochs) is not None:
        raise ConfigError(_BOTH)
    return from_dict(to_dict(config) | {name: _plain(value) for name, value in settings.items()})


def _plain(value: Any) -> Any:
    """Return a setting in the form that JSON gives it, so that it is checked like one from JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value) if isinstance(value, Path) else value


@contextmanager
def _heard(emit: Listener, progress: bool) -> Iterator[Listener]:
    """Give the listener of events: `emit`, and with `progress` also a console."""
    if not progress:
        yield emit
        return
    from deepcnn.console import console

    with console(as_json=False) as tell:

        def both(event: Event) -> None:
            tell(event)
            emit(event)

        yield both
