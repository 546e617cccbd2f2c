"""Training a run, from its first step or from its newest checkpoint."""

from __future__ import annotations

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from deepcnn import checkpoint, graph, objective, optim, summaries
from deepcnn.averages import LossAverages, ParameterAverages
from deepcnn.config import Config, changed_fields, to_dict
from deepcnn.data.arrays import Arrays
from deepcnn.data.augment import Inputs
from deepcnn.data.datasets import NAMES, Split, load_dataset
from deepcnn.data.feeds import Preloaded
from deepcnn.devices import (
    Precision,
    choose_device,
    choose_precision,
    describe_environment,
)
from deepcnn.engines import INITIAL_LOSS_SCALE, Single
from deepcnn.errors import ConfigError, TrainingError
from deepcnn.evaluation import read_inputs, score
from deepcnn.events import (
    Advanced,
    EnvironmentChanged,
    Evaluated,
    Event,
    Finished,
    Interrupted,
    Listener,
    Saved,
    Started,
    Stepped,
    Traced,
    ignore,
)
from deepcnn.models import ChangesWhileTraining, FitsImages, build_model
from deepcnn.run import Run
from deepcnn.state import TrainState

SUMMARY_SHARE = 0.03  # of the training time, at most, goes into histograms and pictures
FREE_TO_CHANGE = ("steps", "log_every", "summary_every", "save_every", "evaluate_every", "keep")


@dataclass(frozen=True)
class Result:
    """How a training ended: `evaluated` is its score, or None where it was interrupted."""

    run: Path
    step: int
    evaluated: Evaluated | None


def train(
    config: Config,
    *,
    run_dir: str | Path | None = None,
    overwrite: bool = False,
    emit: Listener = ignore,
) -> Result:
    """Train a new run to its last step and score it.

    `run_dir`: where the run is kept; None: a new directory below `runs/`. `overwrite`: replace a
    run that is there. `emit` is told of everything that happens. The first SIGINT or SIGTERM saves
    and returns; the second stops at once. Raises a DeepcnnError that says what to do: for settings
    or data that cannot be used, a directory that is taken, or a loss that is not finite.
    """
    config = _with_absolute_paths(config)
    device, precision = _set_up(config)
    arrays = _load_training_set(config, emit)
    inputs = Inputs.of(arrays, **dataclasses.asdict(config.inputs))
    state = _new_state(config, inputs, arrays, device)
    run = Run.create(Path(run_dir) if run_dir else None, config.preset, overwrite=overwrite)
    with run.lock():
        run.write("environment.json", describe_environment(device, precision))
        run.write("inputs.json", {"inputs": inputs.to_dict(), "classes": arrays.classes})
        run.write("config.json", to_dict(config))  # last: it is what makes the directory a run
        return _train(config, run, state, inputs, arrays, device, precision, emit)


def resume(
    run_dir: str | Path,
    *,
    changes: Callable[[Config], Config] = lambda c: c,
    emit: Listener = ignore,
) -> Result:
    """Go on with a run from its newest checkpoint, or from the start where it has none.

    On the same kind of device, versions and threads the result is, bit for bit, that of a training
    that was never interrupted. `changes` maps the run's configuration to the one to go on with;
    only what does not change the numbers (`FREE_TO_CHANGE`) may differ, and `steps` only where the
    learning rate does not depend on it. Otherwise as `train`.
    """
    run = Run.open(Path(run_dir))
    old = run.config()
    new = changes(old)
    free = [n for n in FREE_TO_CHANGE if n != "steps" or old.optimizer.schedule != "linear"]
    if refused := [name for name in changed_fields(old, new) if name not in free]:
        raise ConfigError(
            f"{refused[0]}: cannot change when this run is resumed, since its numbers would; what "
            f"can: {', '.join(free)}. Start a new run for the rest."
        )
    device, precision = _set_up(new)
    arrays = _load_training_set(new, emit)
    inputs, _ = read_inputs(run)
    state = _new_state(new, inputs, arrays, device)
    with run.lock():
        if found := checkpoint.paths(run.checkpoints):
            step, tensors = checkpoint.load(found[-1])
            state.load(step, tensors, str(found[-1]))
        before, now = run.read("environment.json"), describe_environment(device, precision)
        differences = [
            f"{name}: was {before.get(name)}, is {now.get(name)}"
            for name in now
            if before.get(name) != now.get(name)
        ]
        if differences:
            emit(EnvironmentChanged(tuple(differences)))
            run.write("environment.json", now)
        run.write("config.json", to_dict(new))
        return _train(new, run, state, inputs, arrays, device, precision, emit)


def _train(
    config: Config,
    run: Run,
    state: TrainState,
    inputs: Inputs,
    arrays: Arrays,
    device: torch.device,
    precision: Precision,
    emit: Listener,
) -> Result:
    feed = Preloaded(arrays, batch_size=config.batch_size, seed=config.seed, device=device)
    schedule = _schedule(config, len(arrays))
    engine = Single(
        state,
        device=device,
        precision=precision,
        schedule=schedule,
        label_smoothing=config.label_smoothing,
    )
    rate = _Rate(config.batch_size)
    budget = _Budget(SUMMARY_SHARE)
    with ExitStack() as stack:
        listeners: list[Listener] = [emit, stack.enter_context(closing(summaries.JsonLog(run.log)))]
        if config.summary_every:
            board = summaries.TensorBoard(run.summaries / "train", first_step=state.step)
            listeners.append(stack.enter_context(closing(board)))
        stopping = stack.enter_context(_stop_signals())

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        def save() -> None:
            _check(state, schedule, config, run)
            path = checkpoint.save(run.checkpoints, state.step, state.tensors(), keep=config.keep)
            tell(Saved(state.step, str(path)))

        tell(_started(config, run, state, len(arrays), device, precision))
        began = time.perf_counter()
        if config.summary_every and state.step == 0:
            tell(Traced(graph.trace(state.model, inputs.shape)))
        rate.start(state.step)
        budget.start()
        state.model.train()
        while state.step < config.steps:
            step = state.step
            if isinstance(state.model, ChangesWhileTraining):
                state.model.prepare_step(step / config.steps)
            batch = feed.batch(step)
            draws = inputs.draw(
                config.seed, index=batch.index, epoch=batch.epoch, position=batch.position
            )
            images = inputs.train(batch.images, draws)
            if config.summary_every and step % config.summary_every == 0 and budget.left():
                with summaries.capture(state.model) as activations:
                    losses = engine.step(images, batch.labels)
                with budget:
                    tell(
                        summaries.summarize(
                            step, images=images, activations=activations, variables=state.model
                        )
                    )
            else:
                losses = engine.step(images, batch.labels)
            for parameter in state.model.parameters():
                parameter.grad = None
            tell(Advanced(state.step, config.steps))
            last = state.step == config.steps
            if step % config.log_every == 0 or last:
                tell(
                    _stepped(
                        step, losses, state, schedule(step) * config.optimizer.learning_rate, rate
                    )
                )
                _check(state, schedule, config, run)
            if state.step % config.save_every == 0 or last or stopping.is_set():
                save()
            if stopping.is_set() and not last:
                tell(Interrupted(state.step, str(run.path)))
                return Result(run.path, state.step, None)
            if config.evaluate_every and state.step % config.evaluate_every == 0 and not last:
                tell(_evaluate(config, state, inputs, device, precision))
                state.model.train()
        evaluated = _evaluate(config, state, inputs, device, precision)
        tell(evaluated)
        tell(Finished(state.step, str(run.path), time.perf_counter() - began))
        return Result(run.path, state.step, evaluated)


def _with_absolute_paths(config: Config) -> Config:
    """Make the stored configuration mean the same data wherever the run is read from."""
    data_dir = config.data_dir and str(Path(config.data_dir).expanduser().resolve())
    folder = Path(config.data).expanduser()
    is_folder = config.data not in NAMES and folder.is_dir()
    data = str(folder.resolve()) if is_folder else config.data
    return dataclasses.replace(config, data=data, data_dir=data_dir)


def _set_up(config: Config) -> tuple[torch.device, Precision]:
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(config.deterministic)
    device = choose_device(config.device)
    return device, choose_precision(config.precision, device)


def _load_training_set(config: Config, emit: Listener) -> Arrays:
    return load_dataset(
        config.data,
        "train",
        validation_size=config.validation_size,
        data_dir=config.data_dir,
        emit=emit,
    )


def _new_state(config: Config, inputs: Inputs, arrays: Arrays, device: torch.device) -> TrainState:
    model = build_model(
        config.model.name,
        shape=inputs.shape,
        classes=len(arrays.classes),
        widths=config.model.widths,
        seed=config.seed,
    )
    if isinstance(model, FitsImages):
        model.initialize(inputs.evaluate(torch.from_numpy(arrays.images[:5000])))
    model.to(device)
    averages = (
        ParameterAverages(model, config.average_decay) if config.average_decay is not None else None
    )
    return TrainState(
        model=model,
        optimizers=_optimizers(config, model),
        averages=averages,
        loss_averages=LossAverages(device, len(objective.names(model))),
        failed=torch.full((), -1, dtype=torch.int64, device=device),
        loss_scale=torch.full((), INITIAL_LOSS_SCALE, device=device),
        good_steps=torch.zeros((), dtype=torch.int64, device=device),
    )


def _optimizers(config: Config, model: nn.Module) -> list[optim.Optimizer]:
    """Give each trainable parameter to the optimizer that the configuration names for its kind."""
    wanted = config.optimizer
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = list(trainable)[-1].rpartition(".")[0] + ".weight"
    filters = {n: p for n, p in trainable.items() if p.ndim == 4 and wanted.muon_learning_rate}
    heads = {n: p for n, p in trainable.items() if n == head and wanted.head_learning_rate}
    rest = {n: p for n, p in trainable.items() if n not in filters and n not in heads}
    found: list[optim.Optimizer] = [
        optim.SGD(
            parameters,
            learning_rate=rate,
            momentum=wanted.momentum,
            weight_decay=wanted.weight_decay,
        )
        for parameters, rate in (
            (rest, wanted.learning_rate),
            (heads, wanted.head_learning_rate or wanted.learning_rate),
        )
    ]
    if wanted.muon_learning_rate:
        found.append(
            optim.Muon(
                filters, learning_rate=wanted.muon_learning_rate, momentum=wanted.muon_momentum
            )
        )
    return found


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
    device: torch.device,
    precision: Precision,
) -> Started:
    return Started(
        run=str(run.path),
        preset=config.preset,
        step=state.step,
        steps=config.steps,
        batch_size=config.batch_size,
        parameters=sum(p.numel() for p in state.model.parameters()),
        examples=examples,
        device=str(device),
        precision=precision,
        threads=torch.get_num_threads(),
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


def _evaluate(
    config: Config, state: TrainState, inputs: Inputs, device: torch.device, precision: Precision
) -> Evaluated:
    """Score on the validation split if there is one, and otherwise on the test set."""
    split: Split = "validation" if config.validation_size else "test"
    arrays = load_dataset(
        config.data,
        split,
        validation_size=config.validation_size,
        data_dir=config.data_dir,
    )
    model = state.model if state.averages is None else state.averages.model(state.model)
    correct, total, loss = score(model, inputs, arrays, device=device, precision=precision)
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
def _stop_signals() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, so that no step is cut in two.

    A second signal does what it always did. Signals reach only the main thread of a program; in
    any other this does nothing.
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
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        restore()
