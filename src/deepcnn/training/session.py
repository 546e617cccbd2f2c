"""All parts of one training, opened and closed together."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from deepcnn import atomic
from deepcnn.config import Config, to_dict
from deepcnn.data.enough import senseless
from deepcnn.data.formats.decoding import decoder
from deepcnn.devices import describe_environment
from deepcnn.engines.choose import choose
from deepcnn.engines.engine import Job
from deepcnn.errors import ConfigError, StorageError, storing
from deepcnn.events import (
    BeganWith,
    EnvironmentChanged,
    Event,
    Listener,
    Noted,
    Saved,
)
from deepcnn.inference.parent import New, parameters_in
from deepcnn.inputs.fed import Fed
from deepcnn.inputs.feeds import Feed
from deepcnn.inputs.loader import PLANNED_AHEAD, Loader, made_together
from deepcnn.learning import objective
from deepcnn.learning.assembly import (
    Schedule,
    learn_until,
    make_optimizers,
    make_schedule,
    make_state,
    slowed,
)
from deepcnn.learning.state import ROLLBACKS
from deepcnn.models.build import Given, network
from deepcnn.runs import checkpoint
from deepcnn.runs.beginning import Beginning
from deepcnn.runs.find import RUNS
from deepcnn.runs.log import JsonLog
from deepcnn.runs.owner import Owner
from deepcnn.runs.run import CONFIG, ENVIRONMENT, INPUTS, JOB, Run
from deepcnn.runs.tensorboard import TensorBoard
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.team.team import Team
from deepcnn.training import making
from deepcnn.training.checks import check_feed, check_finite, check_keep_best, check_parts
from deepcnn.training.feeding import make_feed
from deepcnn.training.inheriting import Inheritance
from deepcnn.training.judge import Judge
from deepcnn.training.material import Material, open_material
from deepcnn.training.room import check_room, keep_until
from deepcnn.training.scores import logged_scores
from deepcnn.training.signals import Halted, Stop


@dataclass(frozen=True)
class FromPython:
    """What no configuration can hold.

    These are a feed, a network, seconds after which to stop, and data that were read before.
    """

    feed: Fed | None = None
    model: Given | None = None
    limit: float | None = None
    material: Material | None = None


class Session:
    """One training: its data, network, engine, run and listeners.

    `open` makes the parts that new and resumed runs share. Then either `begin` makes a new run's
    directory, or `go_on` loads a run's newest checkpoint. After that, steps can be made. `rehearse`
    is instead for steps of the engine alone, which leave no run behind.
    """

    def __init__(
        self,
        team: Team,
        config: Config,
        given: FromPython,
        stored: TrainedOn | None,
        emit: Listener,
    ) -> None:
        self.stop = Stop(given.limit)  # its time runs from here
        self.team, self._given, self.emit = team, given, self.stop.listener(emit)
        self.own_network = given.model is not None
        self.saved_step = 0  # the newest that has a checkpoint, or needs none
        self.place = making.set_up(team, config)
        self._choice = team.once(lambda: choose(config, self.place, team))
        material = given.material or open_material(config, given.feed, emit, decide=stored is None)
        if stored is not None:
            material.check(stored, emit)
        self._material = material
        config, source = material.config, material.train
        began = stored.began_with if stored is not None else None
        self._inheritance = Inheritance(config.start_from, began) if config.start_from else None
        if self._inheritance is not None and stored is None:
            inheritance, channels = self._inheritance, source.shape[2]
            config = team.once(lambda: inheritance.fitting(config, channels))
        self.config = config
        transform = stored.transform if stored is not None else making.transform_of(config, source)
        model = network(
            config.model,
            given.model,
            shape=transform.shape,
            classes=len(source.classes),
            seed=config.seed,
        )
        self.transform = transform if stored is not None else making.fit(transform, config, model)
        check_keep_best(config, [*material.to_score])
        making.initialize_from(model, self.transform, source, self.place)
        check_parts(model, transform.shape, config, max(1, config.towers, team.count))
        self._new = New(config.model, model, transform.shape, source.classes)
        if stored is None:
            began = team.once(self._fit_parent)
        self._old = parameters_in(model, began)
        self.state, self.slowed = make_state(config, model, self._old), config
        self.schedule = make_schedule(config, len(source))
        self.filling = material.filling
        self._source = source
        self.feed = self._make_feed()
        self.trained_on = TrainedOn(
            self.transform,
            source.classes,
            {split: counts.tolist() for split, counts in material.counts.items()},
            self.feed.fed_by if given.feed is not None else None,
            began,
            # What an older version did not store stays unknown.
            material.content if stored is None else stored.content,
            decoder() if stored is None else stored.decoder,
            material.excluded,
        )
        self._closing = ExitStack()
        self._closing.callback(lambda: self.feed.close())

    @classmethod
    @contextmanager
    def open(
        cls,
        team: Team,
        config: Config,
        given: FromPython,
        emit: Listener,
        stored: TrainedOn | None = None,
    ) -> Iterator[Session]:
        """Open the data and make the network; close everything at the end.

        `stored`: what a resumed run was trained on. Raises ConfigError or DataError for settings
        and data that cannot be used, and RunError for data that have changed.
        """
        session = cls(team, config, given, stored, emit)
        with session._closing:
            yield session

    def begin(self, path: Path | None, command: dict[str, Any], *, overwrite: bool) -> None:
        """Make the directory of a new run; `command`: the configuration as it was asked for."""
        self.team.once(self._take_on)
        for text in senseless(self.trained_on.classes, self.trained_on.counts):
            self.emit(Noted(f"Careful: {text}"))
        if (self.trained_on.fed_by or "").startswith("iterator"):
            what = "an iterator that is no function of the step and has no state_dict"
            if self.config.on_nan == "rollback":
                raise ConfigError(
                    f"on_nan: nothing can go back whose feed is {what}; expected stop"
                )
            self.emit(Noted(f"This run cannot be resumed: its feed is {what}."))

        def make() -> Run:
            where = Path(RUNS) if path is None else path
            if not overwrite:  # else there will be the room of what is deleted
                check_room(where, self.state.tensors(), self.config.keep, self.emit)
            making = Run.begin(path, self.config.preset, overwrite=overwrite)
            run = self._closing.enter_context(making)
            run.write(JOB, {"job": self.team.job(), "command": command})
            run.write(ENVIRONMENT, self._environment())
            run.write(INPUTS, self.trained_on.to_dict())
            run.write(CONFIG, to_dict(self.config))  # last: it makes the directory a run
            return run

        self.run = self.team.once(make)
        self._open_engine()
        self._open_run(first_step=None)
        if (began := self.trained_on.began_with) is not None:
            self.tell(BeganWith(**began.to_dict(), text=began.described()))

    def go_on(self, run: Run, fed_by: str | None, identity: str) -> None:
        """Load the newest checkpoint of a run; `fed_by`: the kind of feed that it had.

        `identity`: of the run whose settings were read. Raises RunError if another process has
        replaced or changed the run since.
        """
        check_feed(run, fed_by, is_given=self._given.feed is not None)
        self.run = run

        def load() -> tuple[int, int, dict[str, Any] | None]:
            self._closing.enter_context(run.lock())
            run.check_identity(identity)
            atomic.remove_unfinished(run.path)
            found = checkpoint.newest_whole(run.checkpoints, lambda: self.owner, self.emit)
            with contextlib.suppress(OSError):  # a killed process may not have brought its name
                atomic.flush_directory(run.checkpoints)
            if found is None:
                self._fit_parent()
                self._take_on()
                return 0, 0, None
            path, (step, tensors, feed_state) = found
            self.slow_down(int(tensors.get(ROLLBACKS, 0)))
            keep = keep_until(self.config, run.checkpoints, step)
            more = max(0, keep - len(checkpoint.paths(run.checkpoints)))
            check_room(run.path, tensors, more, self.emit)
            self.state.load(step, tensors, str(path))
            for directory, count in ((run.checkpoints, keep), (run.best, 1)):
                atomic.remove_unfinished(directory)
                checkpoint.prune(directory, count)  # as a process that was killed had not yet
            return step, self.state.rollbacks, feed_state

        self.state.step, rollbacks, feed_state = self.team.once(load)
        self.slow_down(rollbacks)  # as the process that has read it
        self.saved_step = self.state.step
        if fed_by is not None:
            self.feed.restore(fed_by, feed_state)
        self.team.once(self._note_environment)
        self._open_engine()
        self._open_run(first_step=self.state.step)

    def slow_down(self, rollbacks: int) -> None:
        """Give the optimizers the rates after this many rollbacks, without any momentum."""
        if rollbacks != self.state.rollbacks:
            self.slowed, self.state.rollbacks = slowed(self.config, rollbacks), rollbacks
            model = self.state.model
            self.state.optimizers = make_optimizers(self.slowed, model, self._old)

    def go_on_at(self, step: int, rollbacks: int, feed_state: dict[str, Any] | None) -> None:
        """Go on at the step of a checkpoint that the writing process has loaded."""
        self.slow_down(rollbacks)
        self.state.step = self.saved_step = step
        self.feed = self._make_feed()
        if self.trained_on.fed_by is not None:
            self.feed.restore(self.trained_on.fed_by, feed_state)
        self._make_engine()
        self.feed.look(step)
        if self._board is not None:
            self._board.begin_again(step)
            self._show_again(self._board, step)

    def rehearse(self, schedule: Schedule | None = None) -> None:
        """Make the engine, without a run; `schedule`: replaces the configuration's schedule."""
        self.team.once(self._take_on)
        self.schedule = schedule or self.schedule
        self._open_engine()

    @property
    def owner(self) -> Owner:
        """The run, as its checkpoints know it."""
        return Owner.of(self.config, self.trained_on)

    @property
    def steps(self) -> int:
        """The number of steps: as configured, or fewer if the feed ends before."""
        return min(self.config.steps, self.feed.ends or self.config.steps)

    @property
    def _planned_at_once(self) -> int:
        return max(PLANNED_AHEAD, self._choice.steps_per_plan)

    @property
    def decided_at_once(self) -> int:
        """Sizes and rates are decided for this many steps together, from a multiple of it on."""
        values = self.config.batch_size * math.prod(self.transform.shape)
        if self._choice.steps_per_plan == 1 and made_together(values, self.place.device) == 1:
            return 1
        return self._planned_at_once

    def change_pace(self, pace: tuple[tuple[int, int], ...], steps: int) -> bool:
        """Change the total number of steps, and store it before any step depends on it.

        `pace` and `steps`: as in `Config`. Nothing may change before the next multiple of
        `decided_at_once` that is still ahead. Returns False if the change cannot be stored; then
        nothing changes.
        """
        config = dataclasses.replace(self.config, pace=pace, steps=steps)
        try:
            self.run.write(CONFIG, to_dict(config))
        except StorageError as error:
            self.tell(Noted(str(error)))
            return False
        self.config = config
        self.schedule = make_schedule(config, sum(self.trained_on.counts["train"]))
        return True

    def _fit_parent(self) -> Beginning | None:
        """Find out which weights of another run fit, if the configuration names one."""
        return None if self._inheritance is None else self._inheritance.fit(self._new)

    def _take_on(self) -> None:
        """Take over the weights that fit; engines pass them on to all devices."""
        if self._inheritance is not None:
            self._inheritance.take(self.state)

    def _note_environment(self) -> None:
        """Tell how the environment differs from the earlier one, and store it with the settings."""
        before, now = self.run.read(ENVIRONMENT), self._environment()
        differences = [
            f"{name}: was {before.get(name)}, is {now.get(name)}"
            for name in now
            if before.get(name) != now.get(name)
        ]
        if differences:
            self.emit(EnvironmentChanged(tuple(differences)))
            self.run.write(ENVIRONMENT, now)
        self.run.write(CONFIG, to_dict(self.config))

    def _environment(self) -> dict[str, Any]:
        return describe_environment(self.place) | self.team.describe(self.config.towers)

    def _make_feed(self) -> Feed:
        """Make the feed, from the first step on."""
        shape, order = self.transform.shape, self._material.order
        return make_feed(self.config, self._source, order, shape, self._given.feed)

    def _open_engine(self) -> None:
        self._make_engine()
        self._closing.callback(lambda: self.engine.close())

    def _make_engine(self) -> None:
        """Make the engine, which computes the steps."""
        config, steps_per_plan = self.config, self._choice.steps_per_plan
        loader = Loader(
            self.feed,
            self.transform,
            seed=config.seed,
            training_steps=config.steps,
            share_at=lambda step: self.config.share_at(step),
            steps=self._planned_at_once,
            classes=len(self.trained_on.classes),
        )
        job = Job(
            loader.load,
            config.batch_size,
            lambda step: self.schedule(step),
            label_smoothing=config.label_smoothing,
            class_weights=self._class_weights(),
            sync_batch_norm=config.sync_batch_norm,
            steps_per_plan=steps_per_plan,
            compile=config.compile,
        )
        self.engine = self._choice.engine(self.state, self.place, job, self.team)
        self.feed.bring(self.place.device)
        parameters = dict(self.state.model.named_parameters())
        until = learn_until(config, self.state.model)
        self._settling = [(parameters[name], share) for name, share in until.items()]

    def _open_run(self, first_step: int | None) -> None:
        """Make the listeners, and the object that scores; `first_step`: of a resumed run."""
        self._listeners: list[Listener] = [self.emit]
        self._board: TensorBoard | None = None
        self.team.once(lambda: self._open_listeners(first_step))
        self.judge = Judge(self, self._material, self._given.model)

    def _open_listeners(self, first_step: int | None) -> None:
        log = JsonLog(self.run.log, self._note)
        with storing(self.run.log):
            atomic.flush_directory(self.run.path)  # it has the log's name
        self._listeners.append(self._closing.enter_context(closing(log)))
        if self.config.summary_every:
            folder = self.run.summaries / "train"
            board = TensorBoard(folder, self._note, first_step=first_step)
            self._board = self._closing.enter_context(closing(board))
            self._listeners.append(board)
            if first_step:
                self._show_again(board, first_step)

    def _show_again(self, board: TensorBoard, step: int) -> None:
        """Show a step's scores again, which were removed together with all later steps."""
        for evaluated in logged_scores(self.run.log, step=step):
            board(evaluated)

    def tell(self, event: Event) -> None:
        """Tell an event to all listeners: the user's, the log and TensorBoard."""
        for listener in self._listeners:
            listener(event)

    def fix_settled(self, step: int) -> None:
        """Let only those layers learn whose share of the training is not over."""
        for parameter, share in self._settling:
            parameter.requires_grad_(self.config.share_at(step) < share)

    def look(self) -> None:
        """Raise Halted if a process was asked to stop; all processes call this equally often."""
        if self.team.any(self.stop.asked()):
            raise Halted

    def check(self) -> None:
        """Raise NotFiniteError if something is not finite."""
        check_finite(self.state, self.engine.images, self.schedule, self.slowed, self.run)

    def save(self) -> bool:
        """Write a checkpoint if everything is finite; return whether it could be written."""
        step = self.state.step
        keep = keep_until(self.config, self.run.checkpoints, step)
        feed = self.feed.state(step)
        path = self.save_in(self.run.checkpoints, keep, feed)
        if path is not None:
            self.tell(Saved(step, str(path)))
        return path is not None

    def save_in(self, folder: Path, keep: int, feed: dict[str, Any] | None = None) -> Path | None:
        """Write a checkpoint if everything is finite; return its path, or None if that failed."""
        self.check()
        step = self.state.step
        with contextlib.suppress(OSError):  # what the log tells of earlier steps lasts as they do
            atomic.flush(self.run.log)
        try:
            with storing(checkpoint.path_of(folder, step)):
                return checkpoint.save(
                    folder,
                    step,
                    self.state.tensors(),
                    keep=keep,
                    owner=self.owner,
                    feed=feed,
                )
        except StorageError as error:
            later = "The training goes on, and tries again at the next saving point and in the end."
            self.tell(Noted(f"No checkpoint of step {step:,}: {error} {later}"))
            return None

    def store(self, name: str, values: dict[str, Any]) -> None:
        """Write something about the run into its directory; a failure is told to the listeners."""
        try:
            self.run.write(name, values)
        except StorageError as error:
            self.tell(Noted(str(error)))

    def _note(self, text: str) -> None:
        self.emit(Noted(text))

    def _class_weights(self) -> Tensor | None:
        if self.config.class_weights == "none":
            return None
        return objective.balanced_weights(self._material.counts["train"])
