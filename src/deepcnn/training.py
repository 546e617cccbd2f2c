"""Training a run, from its first step or from its newest checkpoint."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn import checkpoint, graph, objective, optim, summaries
from deepcnn.averages import LossAverages, ParameterAverages
from deepcnn.config import Config, changed_fields, to_dict
from deepcnn.data import datasets
from deepcnn.data.augment import Inputs
from deepcnn.data.batches import AHEAD, Batches
from deepcnn.data.feeds import Fed, Feed, FeedSource, Preloaded, Queued, Streamed, from_arrays
from deepcnn.data.layouts import Split
from deepcnn.data.shuffle import Shuffle
from deepcnn.data.source import Source, in_memory
from deepcnn.data.stream import Stream
from deepcnn.devices import (
    HAS_TRITON,
    Place,
    describe_environment,
    float32_products,
    keep_freed_memory,
)
from deepcnn.engines.single import Job
from deepcnn.engines.start import join
from deepcnn.engines.team import Team
from deepcnn.errors import ConfigError, RunError, TrainingError
from deepcnn.evaluation import blocks_to_score, open_split, read_inputs, score
from deepcnn.events import (
    Advanced,
    EnvironmentChanged,
    Evaluated,
    Event,
    Finished,
    Interrupted,
    Listener,
    Noted,
    Saved,
    Started,
    Stepped,
    Traced,
    ignore,
)
from deepcnn.models import BUILDERS, FitsImages, build_model
from deepcnn.run import Run
from deepcnn.state import TrainState

SUMMARY_SHARE = 0.03  # of the training time, at most, goes into histograms and pictures
HELD_OUT = 10  # one example in so many, where the data have nothing else to be scored on
FREE_TO_CHANGE = (
    *("steps", "towers", "steps_per_plan", "log_every", "summary_every", "save_every"),
    *("evaluate_every", "keep"),
)
STEPS_PER_PLAN = 100  # where a GPU replays them; more need not be planned at once
INITIAL_LOSS_SCALE = 2.0**16  # for fp16; halved at an overflow, doubled after many good steps


@dataclass(frozen=True)
class Result:
    """How a training ended.

    `evaluated` is its score, the last of `scores` (one for each split that was scored), or None
    where it was interrupted.
    """

    run: Path
    step: int
    scores: tuple[Evaluated, ...]

    @property
    def evaluated(self) -> Evaluated | None:
        """The score on the split that counts."""
        return self.scores[-1] if self.scores else None


def train(
    config: Config,
    *,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    feed: FeedSource | None = None,
    emit: Listener = ignore,
) -> Result:
    """Train a new run to its last step and score it.

    `run_dir`: where the run is kept; None: a new directory below `runs/`. `overwrite`: replace a
    run that is there. `feed`: where the batches come from instead of the training set, which then
    only tells the classes and the statistics; see `feeds.Fed`. `emit` is told of everything that
    happens. The first SIGINT or SIGTERM saves and returns; the second stops at once. Processes that
    torchrun has started train together: each calls this, one of them writes and emits. Raises a
    DeepcnnError that says what to do: for settings or data that cannot be used, a directory that
    is taken, or a loss that is not finite.
    """
    with join() as team:
        emit = team.listener(emit)
        path = Path(run_dir) if run_dir else None
        begun = team.once(lambda: Run.of_job(team.job(), path))
        if begun is not None:  # the job was restarted, with the command that it began with
            return _resume(team, begun, lambda c: c, feed, emit)
        config = _with_absolute_paths(config)
        if feed is not None:
            config = dataclasses.replace(config, feed="fed")
        place = _set_up(team, config)
        config = _with_validation(config, emit)
        source = _open_training_set(config, emit)
        counts = _count(source, emit)
        inputs = _new_inputs(config, source)
        state = _new_state(config, inputs, source, place.device)
        to_score = _open_splits_to_score(config, emit)
        about = {
            "inputs": inputs.to_dict(),
            "classes": source.classes,
            "examples": counts.tolist(),
        }
        with ExitStack() as stack:
            ready = stack.enter_context(closing(_make_feed(config, source, feed, emit)))
            if feed is not None and isinstance(ready, Fed):
                about["fed_by"] = ready.kind
                if ready.kind == "iterator":
                    emit(
                        Noted(
                            "This run cannot be resumed: its feed is an iterator that is no "
                            "function of the step and has no state_dict."
                        )
                    )

            def begin() -> Run:
                run = Run.create(path, config.preset, overwrite=overwrite)
                stack.enter_context(run.lock())
                run.write("job.json", {"job": team.job()})
                run.write("environment.json", _environment(team, place, config))
                run.write("inputs.json", about)
                run.write("config.json", to_dict(config))  # last: it makes the directory a run
                return run

            run = team.once(begin)
            return _train(team, config, run, state, inputs, ready, counts, to_score, place, emit)


def resume(
    run_dir: str | Path,
    *,
    changes: Callable[[Config], Config] = lambda c: c,
    feed: FeedSource | None = None,
    emit: Listener = ignore,
) -> Result:
    """Go on with a run from its newest checkpoint, or from the start where it has none.

    On the same kind of device, versions, threads and processes the result is, bit for bit, that of
    a training that was never interrupted; on a GPU where it is `deterministic`. `changes` maps the
    run's configuration to the one to go on with; only what does not change the numbers
    (`FREE_TO_CHANGE`) may differ, and `steps` only where neither the learning rate nor the size of
    the images depends on it. A run that was fed from Python needs its `feed` again, as a function
    of the step or with its state restored. Otherwise as `train`.
    """
    with join() as team:
        run = team.once(lambda: Run.open(Path(run_dir)))
        return _resume(team, run, changes, feed, team.listener(emit))


def _resume(
    team: Team,
    run: Run,
    changes: Callable[[Config], Config],
    feed: FeedSource | None,
    emit: Listener,
) -> Result:
    old, about = team.once(lambda: (run.config(), run.read("inputs.json")))
    new = team.once(lambda: changes(old))
    by_share = old.optimizer.schedule == "linear" or old.inputs.scales
    free = [n for n in FREE_TO_CHANGE if n != "steps" or not by_share]
    if refused := [name for name in changed_fields(old, new) if name not in free]:
        raise ConfigError(
            f"{refused[0]}: cannot change when this run is resumed, since its numbers would; what "
            f"can: {', '.join(free)}. Start a new run for the rest."
        )
    fed_by = about.get("fed_by")
    if (feed is None) != (fed_by is None):
        raise RunError(
            f"{run.path}: this run was {'not ' if feed is not None else ''}fed from Python. "
            + (
                "Resume it without a feed."
                if feed is not None
                else "Resume it there: deepcnn.resume(run, feed=…)"
            )
        )
    place = _set_up(team, new)
    source = _open_training_set(new, emit)
    counts = _count(source, emit)
    inputs, classes = team.once(lambda: read_inputs(run))
    if source.classes != classes or source.shape != inputs.image_shape:
        raise RunError(
            f"{new.data}: the data changed since this run began: expected images "
            f"{inputs.image_shape} of {len(classes)} classes, found {source.shape} of "
            f"{len(source.classes)}. Start a new run."
        )
    if counts.tolist() != about.get("examples"):  # the order of the examples would be another
        raise RunError(
            f"{new.data}: the data changed since this run began: expected these numbers of "
            f"training examples by class: {about.get('examples')}, found {counts.tolist()}. Start "
            "a new run."
        )
    state = _new_state(new, inputs, source, place.device)
    to_score = _open_splits_to_score(new, emit)
    with ExitStack() as stack:
        ready = stack.enter_context(closing(_make_feed(new, source, feed, emit)))

        def load() -> tuple[int, dict[str, Any] | None]:
            stack.enter_context(run.lock())
            if not (found := checkpoint.paths(run.checkpoints)):
                return 0, None
            step, tensors, feed_state = checkpoint.load(found[-1])
            state.load(step, tensors, str(found[-1]))
            return step, feed_state

        state.step, feed_state = team.once(load)
        if isinstance(ready, Fed) and fed_by is not None:
            ready.restore(fed_by, feed_state)

        def go_on() -> None:
            before, now = run.read("environment.json"), _environment(team, place, new)
            differences = [
                f"{name}: was {before.get(name)}, is {now.get(name)}"
                for name in now
                if before.get(name) != now.get(name)
            ]
            if differences:
                emit(EnvironmentChanged(tuple(differences)))
                run.write("environment.json", now)
            run.write("config.json", to_dict(new))

        team.once(go_on)
        return _train(team, new, run, state, inputs, ready, counts, to_score, place, emit)


def _train(
    team: Team,
    config: Config,
    run: Run,
    state: TrainState,
    inputs: Inputs,
    feed: Feed,
    counts: NDArray[np.int64],
    to_score: dict[Split, Source],
    place: Place,
    emit: Listener,
) -> Result:
    """Make the steps; `counts`: int64 [classes], the training examples of each class."""
    examples = int(counts.sum())
    schedule = _schedule(config, examples)
    steps_per_plan = _steps_per_plan(config, place, team)
    batches = Batches(
        feed,
        inputs,
        seed=config.seed,
        training_steps=config.steps,
        steps=max(AHEAD, steps_per_plan),
    )
    job = Job(
        batches.load,
        config.batch_size,
        schedule,
        label_smoothing=config.label_smoothing,
        class_weights=objective.balanced_weights(counts)
        if config.class_weights == "balanced"
        else None,
        sync_batch_norm=config.sync_batch_norm,
        steps_per_plan=steps_per_plan,
        compile=config.compile,
    )
    rate = _Rate(config.batch_size)
    budget = _Budget(SUMMARY_SHARE)
    with ExitStack() as stack:
        stack.enter_context(float32_products(place.device))
        engine = stack.enter_context(closing(team.engine(state, place, job, towers=config.towers)))
        listeners: list[Listener] = [emit]

        def open_listeners() -> None:
            listeners.append(stack.enter_context(closing(summaries.JsonLog(run.log))))
            if config.summary_every:
                board = summaries.TensorBoard(run.summaries / "train", first_step=state.step)
                listeners.append(stack.enter_context(closing(board)))

        team.once(open_listeners)
        stopping = stack.enter_context(_stop_signals(patient=team.job() is not None))

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        def save() -> None:
            check()
            path = checkpoint.save(
                run.checkpoints,
                state.step,
                state.tensors(),
                keep=config.keep,
                feed=feed.state(state.step) if isinstance(feed, Fed) else None,
            )
            tell(Saved(state.step, str(path)))

        def check() -> None:
            _check(state, schedule, config, run)

        blocks_of = {
            split: _blocks_of(source, inputs, feed, place, team)
            for split, source in to_score.items()
        }

        def scores() -> Iterator[Evaluated]:
            for split, blocks in blocks_of.items():
                yield _evaluate(split, blocks(), state, inputs, place, team)

        watched = team.writes and config.summary_every > 0
        parameters = dict(state.model.named_parameters())
        ending = [
            (parameters[name], share) for name, share in _learn_until(config, state.model).items()
        ]
        if isinstance(feed, Preloaded):
            feed.bring(place.device)
        tell(_started(config, run, state, examples, place, team))
        tell(engine.placed())
        if config.compile:
            tell(
                Noted("Compiling the network, which takes up to a minute for each size of images.")
            )
        began = time.perf_counter()
        if config.summary_every and state.step == 0:
            team.once(lambda: tell(Traced(graph.trace(state.model, inputs.shape))))
        rate.start(state.step)
        budget.start()
        state.model.train()
        while state.step < config.steps:
            step = state.step
            for parameter, share in ending:
                parameter.requires_grad_(step / config.steps < share)
            if watched and step % config.summary_every == 0 and budget.left():
                with summaries.capture(engine.model) as activations:
                    losses = engine.watched_step()
                with budget:
                    tell(
                        summaries.summarize(
                            step,
                            images=engine.images,
                            activations=activations,
                            variables=state.model,
                        )
                    )
            else:
                losses = engine.step()
            for parameter in parameters.values():
                parameter.grad = None
            work = inputs.work_at(state.step / config.steps)
            tell(Advanced(state.step, config.steps, work))
            last = state.step == config.steps
            stop = team.any(stopping.is_set()) and not last
            if step % config.log_every == 0 or last:
                tell(
                    _stepped(
                        step, losses, state, schedule(step) * config.optimizer.learning_rate, rate
                    )
                )
                team.once(check)
            if state.step % config.save_every == 0 or last or stop:
                engine.settle()
                team.once(save)
            if stop:
                tell(Interrupted(state.step, str(run.path)))
                return Result(run.path, state.step, ())
            if config.evaluate_every and state.step % config.evaluate_every == 0 and not last:
                engine.settle()
                for evaluated in scores():
                    tell(evaluated)
        engine.settle()
        final = []
        for evaluated in scores():
            tell(evaluated)
            final.append(evaluated)
        tell(Finished(state.step, str(run.path), time.perf_counter() - began))
        return Result(run.path, state.step, tuple(final))


def _with_absolute_paths(config: Config) -> Config:
    """Make the stored configuration mean the same data wherever the run is read from."""
    data_dir = config.data_dir and str(Path(config.data_dir).expanduser().resolve())
    folder = Path(config.data).expanduser()
    is_path = config.data not in datasets.NAMES and folder.exists()
    data = str(folder.resolve()) if is_path else config.data
    return dataclasses.replace(config, data=data, data_dir=data_dir)


def _set_up(team: Team, config: Config) -> Place:
    if config.deterministic:  # cuBLAS reads it at its first product, and without it torch refuses
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if config.deterministic != torch.are_deterministic_algorithms_enabled():  # takes a second
        torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic  # few shapes, each many times
    keep_freed_memory()
    place = team.place(config.device, config.precision, config.threads)
    if config.compile:
        _check_that_it_compiles(config, place, team)
    team.once(
        lambda: team.check(
            place,
            batch_size=config.batch_size,
            towers=config.towers,
            sync_batch_norm=config.sync_batch_norm,
            steps_per_plan=_steps_per_plan(config, place, team),
        )
    )
    return place


def _check_that_it_compiles(config: Config, place: Place, team: Team) -> None:
    if place.device.type != "cuda":
        raise ConfigError(
            f"compile: expected a GPU that torch calls cuda, found {place.device.type}; for a "
            "processor the networks have functions of their own. Leave it out."
        )
    if not HAS_TRITON:
        raise ConfigError(
            "compile: expected the package triton, which torch compiles with, found none. Install "
            "it, or leave this out."
        )
    if _steps_per_plan(config, place, team) == 1:
        raise ConfigError(
            "compile: only planned steps are compiled; expected one process and one GPU, training "
            "from memory, or steps_per_plan above 1. Leave it out."
        )


def _steps_per_plan(config: Config, place: Place, team: Team) -> int:
    if config.steps_per_plan is not None:
        return config.steps_per_plan
    alone = team.plans and not config.towers and config.feed == "preloaded"
    return STEPS_PER_PLAN if alone and place.device.type == "cuda" else 1


def _environment(team: Team, place: Place, config: Config) -> dict[str, Any]:
    return describe_environment(place) | team.describe(config.towers)


def _with_validation(config: Config, emit: Listener) -> Config:
    """Hold out a tenth of the examples where the data have nothing else to be scored on."""
    found = datasets.splits(config.data, data_dir=config.data_dir, emit=emit)
    if config.validation_size or "validation" in found or "test" in found:
        return config
    size = max(1, round(len(open_split(config, "train")) / HELD_OUT))
    emit(
        Noted(
            f"{config.data} has neither a validation nor a test split: {size} of its examples are "
            "held out to score on, each class in its proportion (--validation-size)."
        )
    )
    return dataclasses.replace(config, validation_size=size)


def _open_training_set(config: Config, emit: Listener) -> Source:
    """Open the training set, in memory for the feeds that need it there."""
    source = open_split(config, "train", emit=emit)
    if config.feed in ("queued", "streamed"):
        return source
    return in_memory(source.load(datasets.reading("train", emit)))


def _count(source: Source, emit: Listener) -> NDArray[np.int64]:
    """Count the examples of each class, int64 [classes]; this checks every label."""
    labels = source.labels(datasets.reading("labels", emit))
    return np.bincount(labels, minlength=len(source.classes))


def _make_feed(
    config: Config,
    source: Source,
    given: FeedSource | None,
    emit: Listener,
) -> Feed:
    size, n = config.batch_size, len(source)
    full = Shuffle.full(config.seed, n)
    if config.feed == "preloaded":
        return Preloaded(source.load(), full, batch_size=size)
    if config.feed == "fed":
        return Fed(
            given or from_arrays(source.load(), full, size),
            batch_size=size,
            shape=source.shape,
            classes=len(source.classes),
            examples=n,
        )
    waiting = math.floor(config.min_fraction_of_examples_in_queue * n)
    shuffle = Shuffle.of(
        source.shards,
        seed=config.seed,
        readers=config.readers,
        # so many wait that after a batch has left there are still as many as wanted
        buffer=waiting + size if config.feed == "queued" else config.shuffle_buffer,
    )
    if config.feed == "streamed":
        stream = Stream.extract(source.shards, shuffle).shuffle()
        return Streamed(stream, batch_size=size)
    stream = Stream.extract(source.shards, shuffle, threads=True).shuffle()
    return Queued(stream, examples_in_queue=waiting, batch_size=size, emit=emit)


def _open_splits_to_score(config: Config, emit: Listener) -> dict[Split, Source]:
    """Open what to score on before a run begins: who has nothing should know it by then."""
    splits = config.evaluate_on
    if not splits:
        found = datasets.splits(config.data, data_dir=config.data_dir)
        splits = ("validation" if config.validation_size or "validation" in found else "test",)
    return {split: open_split(config, split, emit=emit) for split in splits}


def _new_inputs(config: Config, source: Source) -> Inputs:
    """Make the inputs, in which no image is scaled to less than the network can take."""
    least = getattr(BUILDERS[config.model.name], "smallest_side", None)
    if config.inputs.scales and least is None:
        raise ConfigError(
            f"inputs.scales: the network {config.model.name} takes images of one size; "
            "leave it empty"
        )
    return Inputs.of(source, least_side=least or 1, **dataclasses.asdict(config.inputs))


def _new_state(config: Config, inputs: Inputs, source: Source, device: torch.device) -> TrainState:
    """Make the state before the first step, on the CPU; the engine moves it.

    What a network's weights are made of is computed on `device`.
    """
    model = build_model(
        config.model.name,
        shape=inputs.shape,
        classes=len(source.classes),
        widths=config.model.widths,
        seed=config.seed,
    )
    if isinstance(model, FitsImages):
        images = torch.from_numpy(source.first_images(5000)).to(device)
        model.initialize(inputs.evaluate(images))
    averages = (
        ParameterAverages(model, config.average_decay) if config.average_decay is not None else None
    )
    return TrainState(
        model=model,
        optimizers=_optimizers(config, model),
        averages=averages,
        loss_averages=LossAverages(len(objective.names(model))),
        failed=torch.full((), -1, dtype=torch.int64),
        loss_scale=torch.full((), INITIAL_LOSS_SCALE),
        good_steps=torch.zeros((), dtype=torch.int64),
    )


def _optimizers(config: Config, model: nn.Module) -> list[optim.Optimizer]:
    """Give each trainable parameter to the optimizer that the configuration names for its kind.

    On the linear schedule the rates of layers that stop learning sooner reach 0 by then.
    """
    wanted = config.optimizer
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = list(trainable)[-1].rpartition(".")[0] + ".weight"
    until = _learn_until(config, model) if wanted.schedule == "linear" else {}
    filters = {n: p for n, p in trainable.items() if p.ndim == 4 and wanted.muon_learning_rate}
    heads = {n: p for n, p in trainable.items() if n == head and wanted.head_learning_rate}
    rest = {n: p for n, p in trainable.items() if n not in filters and n not in heads}
    found: list[optim.Optimizer] = [
        optim.SGD(
            parameters,
            learning_rate=rate,
            momentum=wanted.momentum,
            weight_decay=wanted.weight_decay,
            until=until,
        )
        for parameters, rate in (
            (rest, wanted.learning_rate),
            (heads, wanted.head_learning_rate or wanted.learning_rate),
        )
    ]
    if wanted.muon_learning_rate:
        found.append(
            optim.Muon(
                filters,
                learning_rate=wanted.muon_learning_rate,
                momentum=wanted.muon_momentum,
                until=until,
            )
        )
    return found


def _learn_until(config: Config, model: nn.Module) -> dict[str, float]:
    """Return the shares of the training after which parameters are fixed, by their names.

    The first layers settle first, and have the largest activations. Once they are fixed, the
    backward pass ends before them. (Brock et al.: "FreezeOut: accelerate training by
    progressively freezing layers", 2017.)
    """
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    until: dict[str, float] = {}
    for layer, share in config.optimizer.freeze:
        names = [name for name in learning if name.startswith(layer)]
        if not names:
            layers = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in learning))
            raise ConfigError(
                "optimizer.freeze: expected the beginning of the name of a layer that learns, in "
                f"{config.model.name} one of {layers}; found {layer!r}"
            )
        until |= dict.fromkeys(names, share)
    return until


def _schedule(config: Config, examples: int) -> Callable[[int], float]:
    wanted = config.optimizer
    if wanted.schedule == "linear":
        return lambda step: optim.linear(step, steps=config.steps)
    decay_steps = max(1, math.floor(examples / config.batch_size * wanted.decay_epochs))
    return lambda step: optim.staircase(step, decay_steps=decay_steps, factor=wanted.decay_factor)


def _started(
    config: Config,
    run: Run,
    state: TrainState,
    examples: int,
    place: Place,
    team: Team,
) -> Started:
    return Started(
        run=str(run.path),
        preset=config.preset,
        step=state.step,
        steps=config.steps,
        batch_size=config.batch_size,
        parameters=sum(p.numel() for p in state.model.parameters()),
        examples=examples,
        device=str(place.device),
        precision=place.precision,
        threads=torch.get_num_threads(),
        towers=config.towers,
        processes=team.count,
    )


def _stepped(
    step: int, losses: Tensor, state: TrainState, learning_rate: float, rate: _Rate
) -> Stepped:
    names = objective.names(state.model)
    values, averages = losses.tolist(), state.loss_averages.values(state.step).tolist()
    examples_per_second, seconds = rate.since_last(state.step)  # after the device has answered
    return Stepped(
        step=step,
        losses=dict(zip(names, values, strict=True)),
        averages=dict(zip(names, averages, strict=True)),
        learning_rate=learning_rate,
        examples_per_second=examples_per_second,
        seconds=seconds,
    )


def _check(state: TrainState, schedule: Callable[[int], float], config: Config, run: Run) -> None:
    """Raise TrainingError if the loss of any step so far was not finite, or the weights are not.

    The loss of a step is that before its update, so it does not tell of the newest weights.
    """
    step = int(state.failed)
    if step < 0:
        if torch.stack([p.isfinite().all() for p in state.model.parameters()]).all():
            return
        step = state.step - 1
    rate = schedule(step) * config.optimizer.learning_rate
    lower = config.optimizer.learning_rate / 3
    found = checkpoint.paths(run.checkpoints)
    kept = f"The last good checkpoint is {found[-1]}." if found else "There is no checkpoint yet."
    raise TrainingError(
        f"The loss or the weights were not finite at step {step}, at learning rate {rate:g}. "
        f"{kept} Train with a lower rate, for example --optimizer.learning-rate {lower:.2g}"
    )


def _blocks_of(
    source: Source, inputs: Inputs, feed: Feed, place: Place, team: Team
) -> Callable[[], Iterable[tuple[Tensor, Tensor]]]:
    """Return what gives the blocks of a split; on a GPU they stay, as what is trained on does."""
    read = functools.partial(blocks_to_score, source, inputs, place, team)
    if place.device.type == "cpu" or not isinstance(feed, Preloaded):
        return read
    there = [*read()]
    return lambda: there


def _evaluate(
    split: Split,
    blocks: Iterable[tuple[Tensor, Tensor]],
    state: TrainState,
    inputs: Inputs,
    place: Place,
    team: Team,
) -> Evaluated:
    model = (
        copy.deepcopy(state.model) if state.averages is None else state.averages.model(state.model)
    )
    model.to(place.device)  # a copy: the state may lie elsewhere
    correct, total, loss = score(model, inputs, blocks, place, team)
    return Evaluated(
        step=state.step,
        split=split,
        averaged=state.averages is not None,
        correct=correct,
        total=total,
        loss=loss,
    )


class _Rate:
    """Seconds per step and examples per second since it was last asked."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def start(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def since_last(self, step: int) -> tuple[float, float]:
        before, then = self._step, self._time
        self.start(step)
        seconds = (self._time - then) / (step - before)
        return self._batch_size / seconds, seconds


@dataclass
class _Budget:
    """Keeps what is done within it below a share of the time since `start`."""

    share: float
    _spent: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)
    _entered: float = field(default=0.0, init=False)

    def start(self) -> None:
        self._began = time.perf_counter()

    def left(self) -> bool:
        return self._spent <= self.share * (time.perf_counter() - self._began)

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spent += time.perf_counter() - self._entered


@contextmanager
def _stop_signals(*, patient: bool) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, so that no step is cut in two.

    A second signal does what it always did, unless `patient`: where a launcher and a cluster look
    after the process, both may send one, and the launcher kills whoever is too slow. Signals reach
    only the main thread of a program; in any other this does nothing.
    """
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stopping.set()
        if not patient:
            restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopping
    except BaseException:
        if not patient:  # else the launcher's signal may come before the error has been told
            restore()
        raise
    restore()
