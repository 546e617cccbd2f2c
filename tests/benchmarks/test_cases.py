"""The contenders of each case, for as short as they can run; what is measured is not tested."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.training.start import train
from tests.benchmarks.conftest import BENCHMARKS, Import
from tests.helpers.tiny import tiny, with_inputs


@pytest.mark.usefixtures("cifar10_folder")
@pytest.mark.parametrize(
    ("feed", "where"), [("preloaded", "memory"), ("queued", "files"), ("streamed", "files")]
)
def test_inputs(benchmark: Import, tmp_path: Path, feed: str, where: str) -> None:
    found = benchmark("cases.inputs").images_per_second(feed, tmp_path, warm_up=1, steps=2)
    assert found.pop(where) > 0
    assert found == {"seeds": [0]}


@pytest.mark.usefixtures("cifar10_folder")
def test_reading_pictures(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The sets that are made are read; the limit decodes all of them."""
    reading = benchmark("cases.reading_pictures")
    monkeypatch.setattr(reading, "EXAMPLES", 40)
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "u1")):
        path = tmp_path / "few" / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    monkeypatch.setattr(reading, "SET", str(tmp_path / "few"))
    reading.write_all(tmp_path)
    assert set(reading.ours(tmp_path)) == {"png", "jpeg", "tfrecord"}
    assert set(reading.pillow(1, tmp_path)) == {"png", "jpeg", "tfrecord"}


def test_reading(benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reading = benchmark("cases.reading")
    monkeypatch.setattr(reading, "FORMS", ("npz",))
    reading.convert_to_all(tmp_path)
    assert len(list((tmp_path / "npz").glob("train-*.npz"))) == 5
    for name in (reading.BY_NAME, "npz"):
        assert reading.seconds(name, tmp_path)["seconds"] > 0


@pytest.mark.usefixtures("cifar10_folder")
def test_streaming_memory(benchmark: Import, tmp_path: Path) -> None:
    found = benchmark("cases.streaming_memory").megabytes(0.04, tmp_path)
    assert found["at the most"] >= found["at the start"] > 0
    assert found["on the way"]["files"] == 2
    assert found["on the way"]["images"] == 20_000


@pytest.mark.parametrize("elsewhere", [False, True])
def test_streamed_million(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, elsewhere: bool
) -> None:
    case = benchmark("cases.streamed_million")
    monkeypatch.setattr(case, "PER_SHARD", 100)
    found = case.megabytes(elsewhere, tmp_path, images=450)
    assert found["at the most"] >= found["at the start"] > 0
    assert (found["on the way"]["files"], found["on the way"]["images"]) == (5, 450)
    assert (tmp_path / "data").exists() == elsewhere


def test_training(benchmark: Import, tmp_path: Path) -> None:
    trainings = benchmark("tools.trainings")
    short = ("--data", "synthetic", "--threads", "1", "--summary-every", "0", "--batch-size", "8")
    found = trainings.images_per_second("fp32", short, tmp_path, steps=41)
    assert found.pop("fp32") > 0
    assert found == {"seeds": [0]}


def test_prediction(benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prediction = benchmark("cases.prediction")
    options = ("--data", "synthetic", "--steps", "2", "--batch-size", "16", "--summary-every", "0")
    monkeypatch.setattr(prediction, "PRESETS", {"tutorial": options})
    monkeypatch.setattr(prediction, "CALLS", {prediction.BATCH: 1, 1: 1})
    prediction.train_all(tmp_path)
    for contender in (prediction.prepared, prediction.prepared_in_bf16, prediction.plain):
        found = contender(tmp_path)
        assert found["tutorial: images/s, batch 256"] > 0
        assert found["tutorial: ms, batch 1"] > 0
        agreeing, total = map(int, found["agreement with torch"]["tutorial"].split(" of "))
        assert agreeing > 0.95 * total


def test_distortions(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, cifar10_test: Arrays
) -> None:
    distortions = benchmark("cases.distortions")
    monkeypatch.setattr(distortions.check, "quick_step", lambda: (lambda: 0.5, lambda: 0.1))
    monkeypatch.setattr(distortions, "EACH", {"hue": {"hue": 0.1}, "mixup": {"mixup": 1.0}})
    monkeypatch.setattr(distortions, "STEPS", 1)
    found = distortions.measure(in_memory(cifar10_test), 1)
    assert [*found] == ["step of quick", "inputs of quick", "hue", "mixup", "all of these"]
    assert found["step of quick"] == 500
    assert found["inputs of quick"] > 0
    assert min(found["hue"], found["all of these"]) > 0


def test_gradients_are_summed_by_several_processes(tmp_path: Path, benchmark: Import) -> None:
    worker = benchmark("tools.program").as_worker("sum_gradients", str(tmp_path / "seconds"))
    assert Path(worker[0]) == BENCHMARKS / "run.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run([*command, "--nproc-per-node", "2", *worker], check=True, capture_output=True)
    assert len((tmp_path / "seconds").read_text().split(",")) == 25


@pytest.mark.usefixtures("cifar10_folder")
def test_runtimes(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path
) -> None:
    runtimes = benchmark("cases.runtimes")
    monkeypatch.setattr(runtimes, "PRESETS", {"tiny": ()})
    monkeypatch.setattr(runtimes.speed, "CALLS", {runtimes.speed.MANY: 1, 1: 1})
    (tmp_path / "tiny").symlink_to(tiny_run)
    found = runtimes.answering(("torch", "fp32"), tmp_path)
    assert found.pop("tiny: images/s, batch 256") > 0
    assert found.pop("tiny: ms, batch 1") > 0
    assert found == {"seeds": [0]}
    assert set(runtimes.CASE.contenders) >= {"torch, bf16", "onnxruntime, fp32", "openvino, bf16"}


@pytest.mark.usefixtures("cifar10_folder")
def test_first_answer(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path
) -> None:
    first_answer = benchmark("cases.first_answer")
    monkeypatch.setattr(first_answer, "STARTS", 1)
    (tmp_path / "run").symlink_to(tiny_run)
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.png")
    found = first_answer.answering("torch", tmp_path)
    assert 0 < found["s to the answer"] <= found["s to the end"]
    assert found["s importing torch"] > 0  # in another process, so it may have taken longer
    share = found["s importing torch"] / found["s to the answer"]
    assert found["share importing torch"] == pytest.approx(share, abs=0.001)


def test_optimizers(benchmark: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizers = benchmark("cases.optimizers")
    monkeypatch.setattr(optimizers, "PRESETS", ("tiny",))
    found = optimizers.measure(torch.device("cpu"), rounds=1)
    assert [name.partition(": ")[2] for name in found] == [*optimizers.METHODS]
    assert all(ours > 0 and theirs > 0 for ours, theirs in found.values())


def test_start_from(benchmark: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = with_inputs(tiny(steps=1), standardize="dataset")
    parent = train(preset, run_dir=tmp_path / "parent").run
    start_from = benchmark("cases.start_from")
    monkeypatch.setattr(start_from, "SEEDS", (0, 1))
    monkeypatch.setattr(start_from, "HELD_OUT", 20)
    monkeypatch.setattr(start_from.presets, "quick", lambda: preset)
    labels = np.arange(60) % 3
    every = Arrays(np.full((60, 24, 24, 1), 40, np.uint8), labels, ("a", "b", "c"))
    options = types.SimpleNamespace(run=parent, each=4, steps=1, batch=6)
    tried = start_from.measure(every, options, tmp_path)
    starts = ["scratch", "rate 0.1", "rate 0.3", "rate 1.0", "rate 0.3, its statistics"]
    assert [each["start"] for each in tried] == starts
    assert all(each["of"] == 20 and len(each["right"]) == 2 for each in tried)
    first, second = (np.load(tmp_path / f"data-{seed}" / "train.npz")["labels"] for seed in (0, 1))
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [4, 4, 4]
    assert not (tmp_path / "scratch-0" / "inputs.json").read_text().count("began_with")
    assert (tmp_path / "rate 1.0-0" / "inputs.json").read_text().count("began_with") == 1


def test_sets_for_budgets(benchmark: Import, tmp_path: Path) -> None:
    mixed = Path(benchmark("cases.budgets").mixed(tmp_path))
    assert len(list(mixed.glob("*/*.jpg"))) == 600
    sizes = set()
    for path in mixed.glob("*/*"):
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert len(sizes) > 100


@pytest.mark.endurance
def test_a_budget_that_is_measured(benchmark: Import, tmp_path: Path) -> None:
    budgets = benchmark("cases.budgets")
    found = budgets.trained(budgets.mixed(tmp_path), 30, tmp_path, "--threads", "1")
    assert found["image"][2] == 3
    assert found["seconds"] > 1
    assert (found["kept"], found["used"]) == (True, True)
    assert not list(tmp_path.glob("run-*"))
