"""Every setting of a run, as frozen dataclasses; a preset is a function that returns one.

A run stores its whole configuration as JSON. Reading it back is strict: a key that is unknown,
missing or of the wrong type is an error. Only settings that older versions did not have may be
missing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

from tyro.conf import Suppress

from deepcnn.errors import ConfigError
from deepcnn.settings import (
    DataSpec,
    ModelConfig,
    OptimizerConfig,
    TransformConfig,
    at_least,
    at_most,
)
from deepcnn.typed import read

MOST_THREADS = 4096
MOST_BATCH = 2**24
MOST_EXAMPLES = 2**53  # of a training, each time it sees one; exact as a float, too

# Settings that older runs do not store; they mean what is the default.
_ADDED_LATER = frozenset(
    [
        "config.inputs.brightness",
        "config.inputs.cutmix",
        "config.inputs.erase",
        "config.inputs.hue",
        "config.inputs.mixup",
        "config.inputs.rotation",
        "config.inputs.saturation",
        "config.inputs.translation",
        "config.cache_gigabytes",
        "config.copies_together",
        "config.epochs",
        "config.exclude",
        "config.fit",
        "config.keep_best",
        "config.on_nan",
        "config.optimizer.beta1",
        "config.optimizer.beta2",
        "config.optimizer.bias_learning_rate",
        "config.optimizer.decayed",
        "config.optimizer.drops",
        "config.optimizer.epsilon",
        "config.optimizer.method",
        "config.optimizer.nesterov",
        "config.optimizer.old_layers_rate",
        "config.optimizer.warm_up",
        "config.order",
        "config.pace",
        "config.start_from",
        "config.train_on_extra",
        "config.train_size",
    ]
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Config(DataSpec):
    """All settings of a run: what is trained, on which data (the fields of `DataSpec`), and how."""

    preset: Annotated[str, Suppress]
    """The preset that this configuration started from."""
    model: ModelConfig
    inputs: TransformConfig
    optimizer: OptimizerConfig
    steps: int
    """Number of updates in the whole training."""
    epochs: float | None = None
    """Passes over the training set, instead of steps. They become a number of whole batches, at
    least one. A run stores this number as its steps, and None here."""
    pace: tuple[tuple[int, int], ...] = ()
    """Set by a training with a budget when it changes its number of steps. Each pair is a step, and
    the total number of steps that was planned up to this step. Schedules go on from the share of
    the training that was done by then, and end at the last step."""
    batch_size: int
    """Examples per update, over all devices together; with --num-gpus, for each device."""
    label_smoothing: float = 0.0
    """Share of each label that is distributed evenly over all classes."""
    average_decay: float | None = 0.9999
    """Largest decay of the parameters' moving averages; None: no averages."""
    evaluate_on: tuple[Literal["train", "validation", "test"], ...] = ()
    """Splits to score on; empty: the validation split if there is one, else the test set."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: the rarer a class is, the more each of its examples counts in the loss."""
    feed: Literal["preloaded", "fed", "queued", "streamed"] = "preloaded"
    """How data come in. preloaded: all are in the device's memory. fed: Python hands them over step
    by step. queued: threads read them into a shuffling queue. streamed: they are read from files,
    in constant memory."""
    order: Literal["epochs", "queue"] = "epochs"
    """Order of a set in memory (preloaded, fed). epochs: a new permutation of all examples each
    epoch. queue: the order in which the shuffling queue of the queued feed would give them."""
    readers: int = 16
    """Queued, streamed: how many places in the files are read at once; with queued, by one thread
    each."""
    min_fraction_of_examples_in_queue: float = 0.4
    """Queued: share of the examples that wait in the queue, before the first step and ever
    after."""
    shuffle_buffer: int = 20_000
    """Streamed: number of examples from which the next one is chosen."""
    seed: int = 0
    """Determines the initial weights, the order of the data and every distortion."""
    start_from: str | None = None
    """Begin with what another training has learned: the directory of its run, one of its
    checkpoints, or a file of `deepcnn export --to safetensors`. All layers with the same names and
    shapes are taken over; the last layer only if the classes are the same. None: nothing."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the multiplications; weights are always fp32. auto: fp32 or bf16, whichever
    is faster here."""
    threads: int | None = None
    """Processor threads. None: torch's choice; several processes each take their share."""
    towers: int = 0
    """Number of replicas in this process. Each has a device and its part of every batch; the
    parameters are on the processor. If there are fewer devices, replicas share them. 0: a single
    device without replicas."""
    sync_batch_norm: bool = False
    """Batch normalization uses the statistics of all devices together, not of each device alone."""
    deterministic: bool = False
    """On a GPU: use only kernels that give the same bits every time. (On a CPU all do.)"""
    steps_per_plan: int | None = None
    """Steps that the host plans at once, in one process and with the data in memory. If more than
    1, a GPU replays recorded steps (CUDA graphs) and does not wait for the host. None: 100 if one
    GPU trains alone from memory, otherwise 1."""
    compile: bool = False
    """Planned steps on a GPU: compile the network and the update (torch.compile). This takes up to
    a minute before the first step; after that, each step makes fewer passes over memory."""
    log_every: int = 10
    """Steps from one line of the log to the next."""
    summary_every: int = 100
    """Steps from one TensorBoard summary to the next; 0: none."""
    save_every: int = 1000
    """Steps from one checkpoint to the next; the last step is always saved."""
    evaluate_every: int = 0
    """Steps from one evaluation to the next; 0: only after the last step."""
    keep: int = 5
    """How many of the newest checkpoints are kept."""
    keep_best: bool = False
    """Also keep the checkpoint with the best score on the validation split, of all evaluations.
    After the training, every command uses this checkpoint."""
    on_nan: Literal["stop", "rollback"] = "stop"
    """What to do if a loss, a gradient or a weight is no longer finite. stop: end the training,
    with the last good checkpoint. rollback: go back to this checkpoint and halve the learning rate,
    at most three times. rollback keeps at least two checkpoints."""

    def __repr__(self) -> str:
        return _changed_from_default(self)

    def with_steps_for(self, examples: int) -> Config:
        """Return the configuration with its `epochs` turned into `steps`.

        `examples`: of the training set. The steps are whole batches, rounded down, at least one.
        Without `epochs`, the configuration is returned as it is.
        """
        if self.epochs is None:
            return self
        epochs = Fraction(str(self.epochs))  # 0.29 as it was typed, and not a little less
        steps = max(1, math.floor(examples * epochs / self.batch_size))
        return dataclasses.replace(self, steps=steps, epochs=None)

    @property
    def even_steps(self) -> int:
        """How many steps the whole training would have at the pace of its first steps."""
        return self.pace[0][1] if self.pace else self.steps

    def even_step(self, step: float) -> float:
        """Return where among `even_steps` a training is before a step."""
        begun, even = 0, 0.0  # where the stretch begins that the step is in
        for until, steps in self.pace:
            if step < until:
                break
            even += (until - begun) * ((self.even_steps - even) / (steps - begun))
            begun = until
        else:
            steps = self.steps
        return even + (step - begun) * ((self.even_steps - even) / (steps - begun))

    def share_at(self, step: float) -> float:
        """Return the share of the training that is done before a step, from 0 to 1 at the last."""
        return self.even_step(step) / self.even_steps

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts()
        self._check_shares()
        self._check_inputs()
        self._check_optimizer()

    def _check_counts(self) -> None:
        at_least(
            ("steps", self.steps, 1),
            ("batch_size", self.batch_size, 1),
            ("log_every", self.log_every, 1),
            ("summary_every", self.summary_every, 0),
            ("save_every", self.save_every, 1),
            ("evaluate_every", self.evaluate_every, 0),
            ("keep", self.keep, 1),
            ("threads", 1 if self.threads is None else self.threads, 1),
            ("towers", self.towers, 0),
            ("steps_per_plan", 1 if self.steps_per_plan is None else self.steps_per_plan, 1),
            ("readers", self.readers, 1),
            ("shuffle_buffer", self.shuffle_buffer, 1),
        )
        at_most(
            ("batch_size", self.batch_size, MOST_BATCH),
            ("threads", self.threads or 1, MOST_THREADS),
            ("towers", self.towers, MOST_THREADS),
            ("readers", self.readers, MOST_THREADS),
            ("steps", self.steps, MOST_EXAMPLES // self.batch_size),  # positions are 64-bit
        )
        if not -(2**63) <= self.seed < 2**64:
            raise ConfigError(f"seed: expected an integer of 64 bits, found {self.seed}")

        ends = [0, *(until for until, _ in self.pace), self.steps]
        if ends != sorted(set(ends)) or any(until >= steps for until, steps in self.pace):
            raise ConfigError(
                "pace: expected pairs of a step, rising and below the last, and of how many steps "
                f"there were to be then, found {self.pace} for {self.steps} steps"
            )

    def _check_shares(self) -> None:
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise ConfigError(f"epochs: expected a number above 0, found {self.epochs}")
        for name, value in (
            ("label_smoothing", self.label_smoothing),
            ("average_decay", self.average_decay or 0.0),
            ("optimizer.momentum", self.optimizer.momentum),
            ("optimizer.muon_momentum", self.optimizer.muon_momentum),
            ("optimizer.beta1", self.optimizer.beta1),
            ("optimizer.beta2", self.optimizer.beta2 or 0.0),
            ("optimizer.warm_up", self.optimizer.warm_up),
        ):
            if not 0 <= value < 1:
                raise ConfigError(f"{name}: expected 0 to below 1, found {value}")
        if not 0 <= self.min_fraction_of_examples_in_queue <= 1:
            raise ConfigError(
                "min_fraction_of_examples_in_queue: expected 0 to 1, found "
                f"{self.min_fraction_of_examples_in_queue}"
            )

    def _check_inputs(self) -> None:
        if not 0 < self.inputs.crop <= 1:
            raise ConfigError(f"inputs.crop: expected above 0 to 1, found {self.inputs.crop}")
        starts = [start for start, _ in self.inputs.scales]
        if (
            starts != sorted(set(starts))
            or (starts and not 0 == starts[0] <= starts[-1] < 1)
            or not all(0 < scale <= 1 for _, scale in self.inputs.scales)
        ):
            raise ConfigError(
                "inputs.scales: expected pairs of a share of the training, rising from 0 to below "
                f"1, and a share of each side above 0 to 1, found {self.inputs.scales}"
            )

    def _check_optimizer(self) -> None:
        for name, rate in (
            ("optimizer.learning_rate", self.optimizer.learning_rate),
            ("optimizer.head_learning_rate", self.optimizer.head_learning_rate),
            ("optimizer.bias_learning_rate", self.optimizer.bias_learning_rate),
            ("optimizer.muon_learning_rate", self.optimizer.muon_learning_rate),
            ("optimizer.epsilon", self.optimizer.epsilon),
            ("optimizer.old_layers_rate", self.optimizer.old_layers_rate),
            ("optimizer.decay_epochs", self.optimizer.decay_epochs),
            ("optimizer.decay_factor", self.optimizer.decay_factor),
        ):
            if rate is not None and not 0 < rate < math.inf:
                raise ConfigError(f"{name}: expected above 0, found {rate}")
        if not 0 <= self.optimizer.weight_decay < math.inf:
            raise ConfigError(
                f"optimizer.weight_decay: expected 0 or more, found {self.optimizer.weight_decay}"
            )
        for layer, share in self.optimizer.freeze:
            if not 0 < share <= 1:
                raise ConfigError(
                    f"optimizer.freeze: {layer}: expected a share of the training above 0 to 1, "
                    f"found {share}"
                )
        self._check_schedule()

    def _check_schedule(self) -> None:
        drops, schedule = self.optimizer.drops, self.optimizer.schedule
        if list(drops) != sorted(set(drops)) or not all(0 < drop < 1 for drop in drops):
            raise ConfigError(
                "optimizer.drops: expected shares of the training above 0 and below 1, rising; "
                f"found {drops}"
            )
        if drops and schedule != "staircase":
            raise ConfigError(
                f"optimizer.drops: only the schedule staircase drops; found {drops} with {schedule}"
                ". Give none: --optimizer.drops"
            )
        if self.optimizer.warm_up and schedule == "one_cycle":
            raise ConfigError(
                "optimizer.warm_up: the schedule one_cycle rises by itself; expected 0, found "
                f"{self.optimizer.warm_up}"
            )


def _changed_from_default(settings: Any) -> str:
    """Return a group of settings as Python would write it, without those at their default."""
    shown = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if value != each.default:
            group = dataclasses.is_dataclass(value)
            shown.append(f"{each.name}={_changed_from_default(value) if group else repr(value)}")
    return f"{type(settings).__name__}({', '.join(shown)})"


def to_dict(config: Config) -> dict[str, Any]:
    """Return the configuration as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Undo `to_dict`, also for what went through JSON; raise ConfigError for what does not fit."""
    config: Config = read(Config, values, "config", may_lack=_ADDED_LATER)
    return config


def changed_fields(old: Config, new: Config) -> list[str]:
    """Return the dotted names of the fields in which two configurations differ."""
    before, after = flat(to_dict(old)), flat(to_dict(new))
    return [name for name in after if before[name] != after[name]]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
