"""Scoring: a model, a run once, or every checkpoint of a run that is still being trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn import checkpoint, objective, summaries
from deepcnn.config import Config
from deepcnn.data.augment import Inputs
from deepcnn.data.datasets import open_dataset
from deepcnn.data.layouts import Split
from deepcnn.data.source import Source
from deepcnn.devices import Place, float32_products, keep_freed_memory, to_device
from deepcnn.engines.team import Team
from deepcnn.errors import CheckpointError, ConfigError, RunError
from deepcnn.events import Evaluated, Event, Listener, Waiting, ignore
from deepcnn.inference import for_inference
from deepcnn.models import build_model
from deepcnn.run import Run
from deepcnn.state import check_fit

# Examples scored at a time. The counts do not depend on it, but where it decides which images just
# pass for unsure. A GPU is not busy with a few hundred small images: there it is how many values of
# input may be held.
BATCH, VALUES_ON_GPU = 500, 2**24
_UNSURE = 4  # of so many images one is looked at again
_POLL_SECONDS = 0.5


def evaluate(
    run: str | Path,
    split: Split = "test",
    *,
    averaged: bool = True,
    examples: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Evaluated:
    """Score the newest checkpoint of a run; see `Scorer` for the arguments and the errors."""
    return Scorer(
        run,
        split,
        averaged=averaged,
        examples=examples,
        device=device,
        threads=threads,
        data_dir=data_dir,
        emit=emit,
    ).once()


class Scorer:
    """Scores checkpoints of a run on a whole split or its first `examples`, each counted once.

    `averaged`: with the moving averages of the parameters, if the run keeps any; `device`,
    `threads`: where to compute, independent of the training; `data_dir`: the folder of all data
    sets, None: the run's own; `emit` is told if data has to be fetched. Raises RunError,
    ConfigError or DataError, saying what is missing or does not fit.
    """

    def __init__(
        self,
        run: str | Path,
        split: Split,
        *,
        averaged: bool,
        examples: int | None,
        device: str,
        threads: int | None,
        data_dir: str | Path | None,
        emit: Listener,
    ) -> None:
        self._run = Run.open(Path(run))
        self._split = split
        self._averaged = averaged
        self._config = self._run.config()
        keep_freed_memory()
        self._place = Place.choose(device, self._config.precision)
        if threads is not None:
            torch.set_num_threads(threads)
        self._inputs, self._classes = read_inputs(self._run)
        source = open_split(self._config, split, data_dir=data_dir, emit=emit)
        if source.classes != self._classes or source.shape != self._inputs.image_shape:
            raise ConfigError(
                f"{self._config.data}: the data changed since this run was trained: expected "
                f"images {self._inputs.image_shape} of {len(self._classes)} classes, found "
                f"{source.shape} of {len(source.classes)}"
            )
        if examples is not None and not 1 <= examples <= len(source):
            raise ConfigError(f"examples: expected 1 to {len(source)}, found {examples}")
        self._source = source.select(np.arange(len(source)) < examples) if examples else source

    def once(self) -> Evaluated:
        """Score the newest checkpoint; raise CheckpointError where there is none."""
        while (newest := self._newest()) is not None:
            try:
                return self._score(newest)[0]
            except FileNotFoundError:  # a training has removed it meanwhile; there is a newer one
                continue
        raise self._no_checkpoint()

    def follow(self, interval: float) -> Iterator[Event]:
        """Score the newest checkpoint again and again, until the run's training ends or dies.

        Every `interval` seconds the newest checkpoint, if there is a new one, is scored, and what
        a visualizer shows of it is written to `summaries/<split>` in the run. Yields an
        `Evaluated` for each, and a `Waiting` whenever it begins to wait.
        """
        done: Path | None = None
        with closing(summaries.TensorBoard(self._run.summaries / self._split)) as board:
            while True:
                in_training = self._run.in_training()  # asked first: what it saves last is seen
                newest = self._newest()
                if newest is not None and newest != done:
                    try:
                        evaluated, summary = self._score(newest)
                    except FileNotFoundError:
                        continue
                    done = newest
                    board(evaluated)
                    board(summary)
                    yield evaluated
                elif not in_training:
                    break
                if in_training:
                    yield Waiting(str(self._run.path))
                    deadline = time.monotonic() + interval
                    while time.monotonic() < deadline and self._run.in_training():
                        time.sleep(min(_POLL_SECONDS, interval))
        if done is None:
            raise self._no_checkpoint()

    def _newest(self) -> Path | None:
        found = checkpoint.paths(self._run.checkpoints)
        return found[-1] if found else None

    def _no_checkpoint(self) -> CheckpointError:
        return CheckpointError(
            f"No checkpoint file found in {self._run.checkpoints}. If nobody trains this run, go "
            f"on with it: deepcnn train --resume {self._run.path}"
        )

    def _score(self, path: Path) -> tuple[Evaluated, Event]:
        """Return the score of a checkpoint, and the summary of its first batch."""
        model, step, averaged = load_model(
            self._config, self._inputs, len(self._classes), path, averaged=self._averaged
        )
        model.to(self._place.device)
        blocks = blocks_to_score(self._source, self._inputs, self._place, Team())
        correct, total, loss = score(model, self._inputs, blocks, self._place, Team())
        first = torch.from_numpy(self._source.first_images(128))
        images = self._inputs.evaluate(first.to(self._place.device))
        with (
            torch.no_grad(),
            self._place.autocast(),
            summaries.capture(model) as activations,
        ):
            model(images)
        summary = summaries.summarize(step, images=images, activations=activations)
        return Evaluated(step, self._split, averaged, correct, total, loss), summary


def blocks_to_score(
    source: Source, inputs: Inputs, place: Place, team: Team, batch: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Bring this process's share of a split to a device: images uint8 [b, H, W, C], labels int64.

    Each process of the team gets its share of the source's blocks of `batch` examples, None for the
    device's usual number.
    """
    batch = batch or _batch(len(source), math.prod(inputs.shape), place)
    for images, labels in source.blocks(batch, index=team.index, count=team.count):
        yield to_device(images, place.device), to_device(labels, place.device)


@torch.no_grad()
def score(
    model: nn.Module,
    inputs: Inputs,
    blocks: Iterable[tuple[Tensor, Tensor]],
    place: Place,
    team: Team,
) -> tuple[int, int, float]:
    """Return how many examples are right, of how many, and the mean cross-entropy in nats.

    An example's logits are the mean over the views that `inputs` asks for; see `_logits`. Each
    process of the team scores its `blocks_to_score`, and all get the sums: each example counts
    once. The model must lie at `place`, and is left in evaluation mode.
    """
    model.eval()
    predict = for_inference(model, place.dtype)
    correct = torch.zeros((), dtype=torch.int64, device=place.device)
    losses = [torch.zeros((), device=place.device)]
    total = 0
    for images, labels in blocks:
        with place.autocast(), float32_products(place.device):
            logits = _logits(predict, inputs, images)
        correct += objective.count_correct(logits, labels)
        losses.append(F.cross_entropy(logits.float(), labels, reduction="sum"))
        total += len(labels)
    loss = torch.stack(losses).cpu().double().sum()
    sums = torch.stack([correct.cpu().double(), torch.tensor(total).double(), loss])
    all_correct, all_examples, all_losses = team.sum(sums).tolist()
    return int(all_correct), int(all_examples), all_losses / all_examples


def _logits(predict: nn.Module, inputs: Inputs, images: Tensor) -> Tensor:
    """Return the mean logits [b, classes] over the views of images uint8 [b, H, W, C].

    Where only those are looked at again of which the network is unsure, they are the images of a
    block whose two largest logits differ least, one in `_UNSURE`: a number that is known before, so
    that nobody need wait for a GPU's answer. (After hiverge's cifar10-speedrun, 2025.)
    """

    def mean(views: list[tuple[float, Tensor]]) -> Tensor:
        return torch.stack([weight * predict(view) for weight, view in views]).sum(0)

    logits = mean(inputs.views_of(images))
    if inputs.views != "unsure":
        return logits
    largest = logits.topk(min(2, logits.shape[1]), dim=1).values
    margins = largest[:, 0] - largest[:, -1]
    unsure = margins.topk(math.ceil(len(images) / _UNSURE), largest=False).indices
    again = mean(inputs.shifted_views_of(images[unsure]))
    return logits.index_copy(0, unsure, (logits[unsure] + again) / 2)


def _batch(examples: int, values: int, place: Place) -> int:
    """Return how many examples of so many values to score at a time, in equal blocks on a GPU."""
    if place.device.type == "cpu":
        return BATCH
    blocks = math.ceil(examples / max(1, VALUES_ON_GPU // values))
    return math.ceil(examples / blocks)


def load_model(
    config: Config, inputs: Inputs, classes: int, path: Path, *, averaged: bool
) -> tuple[nn.Module, int, bool]:
    """Return the network of a checkpoint, its step, and whether its parameters are averages."""
    model = build_model(
        config.model.name, shape=inputs.shape, classes=classes, widths=config.model.widths
    )
    step, tensors, _ = checkpoint.load(path)
    raw = _below("model.", tensors)
    averages = _below("average.", tensors)
    own = model.state_dict()
    check_fit(own, raw, str(path))
    use_averages = averaged and bool(averages)
    model.load_state_dict(raw | averages if use_averages else raw)
    return model, step, use_averages


def _below(prefix: Literal["model.", "average."], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def open_split(
    config: Config,
    split: Split,
    *,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Source:
    """Open a split of the data that a configuration names; `data_dir` is an other place for it."""
    return open_dataset(
        config.data,
        split,
        validation_size=config.validation_size,
        validation_choice=config.validation_choice,
        validation_seed=config.validation_seed,
        image_size=config.image_size,
        skip_bad=config.skip_bad,
        data_dir=data_dir or config.data_dir,
        emit=emit,
    )


def read_inputs(run: Run) -> tuple[Inputs, tuple[str, ...]]:
    """Return a run's inputs and the names of its classes."""
    values = run.read("inputs.json")
    try:
        return Inputs.from_dict(values["inputs"]), tuple(values["classes"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.path / 'inputs.json'}: not as deepcnn writes it ({error})") from error
