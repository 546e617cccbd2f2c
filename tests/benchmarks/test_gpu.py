"""The programs for GPUs, on the CPU; what is measured is not tested."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.benchmarks.conftest import BENCHMARKS, Import

# What the published ones print.
PUBLISHED = """
import pathlib, time
assert pathlib.Path("cifar10/train.pt").exists()
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run in range(1000):
    print("|          |      0  |     0.9412  |   0.9240  |               |        1.5000  |")
    accuracy, seconds = 0.94 + run / 10000, 2 + run / 100
    print(f"|     |   eval  |     0.9512  |   0.9340  |  {accuracy:.4f}  |  {seconds:.4f}  |")
"""


def test_speed_is_measured_beside_published_programs(benchmark: Import, tmp_path: Path) -> None:
    (tmp_path / "peer.py").write_text(PUBLISHED)
    data = tmp_path / "data" / "cifar10"
    data.mkdir(parents=True)
    (data / "train.pt").touch()
    (data / "test.pt").touch()
    arguments = ["gpu_speed", "tiny", "--device", "cpu", "--runs", "2"]
    arguments += ["--out", str(tmp_path / "o"), "--peer-data", str(tmp_path / "data")]
    arguments += ["--peer", f"published={tmp_path / 'peer.py'}"]
    for change in ("steps=200", "optimizer.learning_rate=0.03", "steps_per_plan=40"):
        arguments += ["--set", change]
    assert benchmark("run").main(arguments) == 0
    result = json.loads((tmp_path / "o").read_text())
    ours, published = result["results"]["deepcnn"], result["results"]["published"]
    assert [run["seed"] for run in ours] == [0, 1]
    assert all(run["accuracy"] > 0.5 for run in ours)
    assert all(run["seconds"] > run["training"] > run["scoring"] > 0 for run in ours)
    # The first run of a published program, in which it compiles, is left out.
    assert published == [
        {"accuracy": 0.9401, "seconds": 2.01},
        {"accuracy": 0.9402, "seconds": 2.02},
    ]
    assert result["summaries"]["published"]["mean accuracy"] == pytest.approx(0.94015)
    mean = result["summaries"]["deepcnn"]["mean seconds"]
    assert result["summaries"]["published"]["ratio"] == pytest.approx(2.015 / mean)
    assert result["profile"]["seconds a step"] > 0
    assert result["profile"]["most"]


def test_cuda_convnet_is_trained_and_scored_over_ten_views_and_one(
    benchmark: Import, tmp_path: Path
) -> None:
    """The command of `peers/README.md`, but with few steps and filters, on the CPU."""
    documented = (BENCHMARKS / "peers" / "README.md").read_text()
    command = "benchmarks/run.py gpu_speed cuda_convnet --runs 5 --views one --minutes 120"
    assert command in documented
    arguments = command.replace("--runs 5", "--runs 1").split()[1:]
    arguments += ["--device", "cpu", "--out", str(tmp_path / "o")]
    for change in ('data="synthetic"', "steps=110", "batch_size=16", "model.widths=[16,16,8,8]"):
        arguments += ["--set", change]
    arguments += ["--set", "optimizer.learning_rate=0.004"]
    assert benchmark("run").main(arguments) == 0
    result = json.loads((tmp_path / "o").read_text())
    assert result["config"]["inputs"]["views"] == "ten"
    (run,) = result["results"]["deepcnn"]
    summary = result["summaries"]["deepcnn"]
    for name in ("accuracy", "accuracy, one"):
        assert summary[f"mean {name}"] == run[name] > 0.5
    assert run["accuracy"] != run["accuracy, one"]


def test_a_published_program_that_hangs_is_ended(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When its time is up: here, when it has printed all and begins to hang."""
    speed = benchmark("cases.gpu_speed")
    hang = 'pathlib.Path("printed").touch(); time.sleep(1000)'
    (tmp_path / "peer.py").write_text(f"{PUBLISHED}\n{hang}\n")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "train.pt").touch()
    times = []

    class Alarm(threading.Thread):
        def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
            super().__init__(daemon=True)
            times.append(seconds)
            self._ring = ring

        def run(self) -> None:
            while not (tmp_path / "printed").exists():
                time.sleep(0.01)
            self._ring()

        def cancel(self) -> None:
            self.join()

    monkeypatch.setattr(speed.threading, "Timer", Alarm)
    found = speed.run_peer(tmp_path / "peer.py", tmp_path, 1000, time.perf_counter() + 500)
    assert 0 < times[0] <= 500
    assert len(found) == 999  # after the first, in which it compiles
    assert found[0] == {"accuracy": 0.9401, "seconds": 2.01}


def test_whitening_is_timed(benchmark: Import) -> None:
    """So its seconds are no longer 0 where a network makes filters from the data."""
    speed = benchmark("cases.gpu_speed")
    changes = [
        "steps=1",
        'data="synthetic"',
        "summary_every=0",
        'device="cpu"',
        "model.widths=[8,8,8]",
    ]
    config = speed.changed(speed.deepcnn.presets.quick(), changes)
    timer = speed.Timer()
    assert speed.train(config, 0, timer.hear) > 0
    assert timer.found["seconds"] > 0


def test_engines_are_compared_step_by_step(
    benchmark: Import, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tower on another device, and what is resumed, come to the same numbers."""
    devices = benchmark("cases.gpu_devices")
    monkeypatch.setattr(devices, "STEPS", 4)
    monkeypatch.setattr(devices, "EVERY", 1)
    placed: list[tuple[str, ...]] = []
    towers = devices.choose.Towers

    def noted(state: object, place: object, job: object, on: tuple[torch.device, ...]) -> object:
        placed.append(tuple(map(str, on)))
        return towers(state, place, job, on)

    monkeypatch.setattr(devices.choose, "Towers", noted)
    kinds = ["one device", "one device, planned", "one device, planned, resumed"]
    kinds.append("two towers, one on the processor")
    monkeypatch.setattr(devices, "ENGINES", {kind: devices.ENGINES[kind] for kind in kinds})
    found, same_bits = devices.compare("cpu:0")  # told apart from "cpu" by its name alone
    assert same_bits
    assert placed == [("cpu", "cpu:0")]
    assert list(found) == kinds
    for engine in found.values():
        assert len(engine["after every 1 steps"]) == 4
        assert engine["largest difference"] < devices.LARGEST
        assert engine["images/s"] > 0
