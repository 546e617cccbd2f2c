from __future__ import annotations

import dataclasses
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from deepcnn import presets
from deepcnn.data.open import load_dataset
from deepcnn.data.source import in_memory
from deepcnn.devices import Place
from deepcnn.errors import CheckpointError, ConfigError, DataError, RunError
from deepcnn.events import Evaluated, Event, Waiting, ignore
from deepcnn.inference.evaluation import Scorer, evaluate
from deepcnn.inference.prepared import evaluation
from deepcnn.inputs.feeds import Preloaded
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.transform import Inputs
from deepcnn.models import build_model
from deepcnn.runs import checkpoint
from deepcnn.team.team import Team
from deepcnn.training.start import start as training

TINY = dataclasses.replace(presets.tiny(), summary_every=0, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "run"
    training.train(dataclasses.replace(TINY, steps=100), run_dir=path)
    return path


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_every_example_counts_once_whatever_the_batch(
    batch: int,
) -> None:
    arrays = load_dataset("synthetic", "test")
    inputs = Inputs.of(
        in_memory(arrays), crop=0.75, pad=0, flip="none", contrast=None, standardize="image"
    )
    model = build_model("tutorial", widths=(8, 8, 32, 16)).eval()
    with torch.no_grad():
        logits = model(inputs.evaluate(torch.from_numpy(arrays.images))).double().numpy()
    right = logits.argmax(1) == arrays.labels
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    entropy = -log_p[np.arange(len(arrays)), arrays.labels]
    for count in (1, 2, 33, 512):
        place = Place(torch.device("cpu"), "fp32")
        some = in_memory(arrays.select(slice(0, count)))
        blocks = evaluation.blocks_to_score(some, inputs, place, Team(), batch)
        correct, total, loss = evaluation.score(model, inputs, blocks, place, Team())
        assert (correct, total) == (int(right[:count].sum()), count)
        assert loss == pytest.approx(entropy[:count].mean(), rel=1e-5)


def test_a_gpu_scores_equal_blocks_of_images_that_fit() -> None:
    gpu = Place(torch.device("cuda"), "bf16")
    assert evaluation._batch(10_000, 3 * 32 * 32, gpu) == 5000
    assert evaluation._batch(512, 3 * 32 * 32, gpu) == 512
    assert evaluation._batch(10_000, 3 * 224 * 224, gpu) <= 2**24 // (3 * 224 * 224)
    assert evaluation._batch(3, 2**25, gpu) == 1


def test_what_is_scored_on_a_gpu_stays_there() -> None:
    arrays = load_dataset("synthetic", "test")
    source = in_memory(arrays)
    inputs = Inputs.of(source, crop=1, pad=0, flip="none", contrast=None, standardize="unit")
    feed = Preloaded(arrays, Shuffle.full(0, len(arrays)), batch_size=8)

    def blocks(device: str) -> Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]:
        place = Place(torch.device(device), "fp32")
        return training._blocks_of(source, inputs, feed, place, Team())

    there = blocks("meta")  # stands for one
    assert there() is there()
    assert sum(len(labels) for _, labels in there()) == len(arrays)
    assert all(tensor.device.type == "meta" for pair in there() for tensor in pair)
    read = blocks("cpu")
    for _ in range(2):  # each time anew
        assert torch.equal(torch.cat([x for x, _ in read()]), torch.from_numpy(arrays.images))


@pytest.mark.parametrize("views", ["shifted", "unsure"])
def test_answers_are_averaged_over_the_views(views: Literal["shifted", "unsure"]) -> None:
    arrays = load_dataset("synthetic", "test")
    inputs = Inputs.of(
        in_memory(arrays),
        crop=0.75,
        pad=0,
        flip="none",
        contrast=None,
        standardize="image",
        views=views,
    )
    model = build_model("tutorial", widths=(8, 8, 32, 16)).eval()
    model.get_parameter("softmax_linear.weight").data.mul_(100.0)  # so that views differ
    central = inputs.evaluate(torch.from_numpy(arrays.images))
    padded = torch.nn.functional.pad(central, (1, 1, 1, 1), mode="reflect")
    with torch.no_grad():

        def both(view: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = (model(view) + model(view.flip(3))).double() / 2
            return logits

        shifted = (both(padded[:, :, :24, :24]) + both(padded[:, :, 2:, 2:])) / 2
        logits = (both(central) + shifted) / 2
        if views == "unsure":
            best = both(central).sort(1).values[:, -2:]
            order = (best[:, 1] - best[:, 0]).argsort()
            logits[order[len(arrays) // 4 :]] = both(central)[order[len(arrays) // 4 :]]
    labels = torch.from_numpy(arrays.labels)
    place = Place(torch.device("cpu"), "fp32")
    blocks = evaluation.blocks_to_score(in_memory(arrays), inputs, place, Team(), len(arrays))
    correct, _, loss = evaluation.score(model, inputs, blocks, place, Team())
    assert correct == int((logits.argmax(1) == labels).sum())
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_splits_examples_and_parameters_can_be_chosen(run: Path) -> None:
    whole = evaluate(run)
    assert (whole.step, whole.split, whole.total, whole.averaged) == (100, "test", 512, True)
    raw = evaluate(run, averaged=False)
    assert not raw.averaged
    assert raw.loss != whole.loss
    assert evaluate(run, "train").total == 8192
    assert evaluate(run, examples=100).total == 100
    with pytest.raises(ConfigError, match="examples: expected 1 to 512, found 513"):
        evaluate(run, examples=513)
    with pytest.raises(DataError, match="no validation split"):
        evaluate(run, "validation")


def test_without_checkpoint_or_run_it_says_so(tmp_path: Path, run: Path) -> None:
    with pytest.raises(RunError, match="expected the directory of a run"):
        evaluate(tmp_path)
    for name in ("config.json", "inputs.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(CheckpointError, match="No checkpoint file found"):
        evaluate(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_bytes((run / "config.json").read_bytes())
    (tmp_path / "bad" / "inputs.json").write_text('{"inputs": {"crop": 3}, "classes": []}')
    with pytest.raises(RunError, match=r"inputs.json: not as deepcnn writes it"):
        evaluate(tmp_path / "bad")
    with pytest.raises(CheckpointError, match="No checkpoint file found"):
        list(scorer(tmp_path).follow(0.01))


def scorer(run: Path) -> Scorer:
    return Scorer(
        run,
        "test",
        averaged=True,
        examples=64,
        device="cpu",
        threads=1,
        data_dir=None,
        emit=ignore,
    )


def test_following_a_run_that_is_over_scores_it_once(run: Path) -> None:
    (event,) = scorer(run).follow(60)
    assert isinstance(event, Evaluated)
    assert list((run / "summaries" / "test").iterdir())


def train_slowly(path: Path) -> None:
    torch.set_num_threads(1)
    config = dataclasses.replace(TINY, steps=100_000, save_every=10, keep=2)
    training.train(config, run_dir=path)


def test_following_scores_new_checkpoints_until_the_training_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    trainer = multiprocessing.get_context("spawn").Process(target=train_slowly, args=(path,))
    trainer.start()
    try:
        deadline = time.monotonic() + 60
        while not (path / "config.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        heard: list[Event] = []

        def follow() -> None:
            for event in scorer(path).follow(0.05):
                heard.append(event)
                if sum(isinstance(e, Evaluated) for e in heard) == 3:
                    trainer.kill()  # no goodbye: only the lock tells

        follower = threading.Thread(target=follow)
        follower.start()
        follower.join(120)
        assert not follower.is_alive()
    finally:
        trainer.kill()
        trainer.join()
    steps = [event.step for event in heard if isinstance(event, Evaluated)]
    assert len(steps) >= 3
    assert steps == sorted(set(steps))
    assert any(isinstance(event, Waiting) for event in heard)
    assert steps[-1] == checkpoint.step_of(checkpoint.paths(path / "checkpoints")[-1])
