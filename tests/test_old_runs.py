"""Runs that were left behind still open, score as their logs say, and go on.

They are whole directories, but for the lock, as these commands left them:

    options="--device cpu --precision fp32 --threads 1 --summary-every 0"
    deepcnn train tiny --run-dir runs/tiny --model.widths 4 4 8 8 --steps 40 --batch-size 128 \
        --optimizer.learning-rate 0.1 --optimizer.momentum 0.97 --save-every 20 --keep 2 $options
    deepcnn train mnist --data fashion_mnist --run-dir runs/mnist --model.widths 8 8 --steps 200 \
        --save-every 100 --keep 1 --log-every 20 --evaluate-every 0 $options

Two more are of the same command, the one before files and checkpoints told their format, which is
the first one, the other in the second format:

    deepcnn train tiny --run-dir runs/held_out --model.widths 4 4 8 8 --steps 30 --batch-size 128 \
        --optimizer.learning-rate 0.1 --optimizer.momentum 0.97 --save-every 15 --keep 2 \
        --validation-size 500 $options

Beyond fetching the data only public functions are used here, and files are read as files.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import deepcnn
from deepcnn.data.fetch import fetch
from deepcnn.runs.run import Run
from tests.helpers.shards import FASHION_MNIST

OLD = Path(__file__).parent / "old_runs"
SPLITS = {
    "tiny": ["test"],
    "mnist": ["train", "validation", "test"],
    "held_out": ["validation"],
    "second_format": ["validation"],
}
STEPS = {"tiny": 40, "mnist": 200, "held_out": 30, "second_format": 30}
FORMATS = {"tiny": 1, "mnist": 1, "held_out": 1, "second_format": 2}
# What they were trained on, which environment.json does not tell: maker, family and model.
PROCESSOR = ["AuthenticAMD", "25", "17"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Fashion-MNIST, from Debian's package."""
    folder = tmp_path_factory.mktemp("data")
    fetch("fashion_mnist", source=FASHION_MNIST, data_dir=folder)
    return folder


@pytest.fixture(params=list(SPLITS))
def old(
    request: pytest.FixtureRequest,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A copy of a run, named as it."""
    monkeypatch.setenv("DEEPCNN_DATA", str(data_dir))
    return copy_of(request.param, tmp_path)


def copy_of(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(OLD / name, folder / name))


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


def environment(run: Path) -> Any:
    return Run(run).read("environment.json")


def processor() -> list[str]:
    """Return maker, family and model of the first processor, or nothing where no file tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    pairs = [[part.strip() for part in line.split(":")] for line in reversed(lines) if ":" in line]
    about = {pair[0]: pair[1] for pair in pairs}
    return [about.get(name, "") for name in ("vendor_id", "cpu family", "model")]


def test_they_hold_nothing_of_the_machine_that_made_them_but_its_kind() -> None:
    for path in OLD.rglob("*.*"):
        assert path.suffix in (".json", ".jsonl", ".safetensors")
        if path.suffix != ".safetensors":
            assert '"/' not in path.read_text(), path  # where an absolute path would begin
    assert sum(path.stat().st_size for path in OLD.rglob("*")) < 300_000


@pytest.mark.parametrize("name", FORMATS)
def test_each_is_of_its_format(name: str) -> None:
    for path in (OLD / name).glob("*.json"):
        assert json.loads(path.read_text()).get("format", 1) == FORMATS[name], path
    for path in checkpoints(OLD / name):
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()["deepcnn"])
        assert said.get("format", 1) == FORMATS[name]
        assert ("run" in said) == (FORMATS[name] > 1)


def test_an_old_run_has_the_score_that_its_log_says(old: Path) -> None:
    logged = events(old, "Evaluated")
    assert [score["split"] for score in logged] == SPLITS[old.name]
    for score in logged:
        found = deepcnn.evaluate(old, score["split"], device="cpu")
        assert (found.step, found.correct) == (STEPS[old.name], score["correct"])
        assert (found.total, found.averaged) == (score["total"], score["averaged"])
        assert found.loss == pytest.approx(score["loss"], rel=1e-6)


def test_an_old_run_goes_on(old: Path) -> None:
    before, log = STEPS[old.name], (old / "log.jsonl").read_text()
    steps, steps_logged = before + before // 2, len(events(old, "Stepped"))
    logged = events(old, "Evaluated")[-1]
    result = deepcnn.resume(old, changes=lambda config: dataclasses.replace(config, steps=steps))
    assert result.step == steps
    assert [score.split for score in result.scores] == SPLITS[old.name]
    assert result.evaluated is not None
    assert result.evaluated.total == logged["total"]
    assert result.evaluated.loss != logged["loss"]  # the weights are others now
    again = deepcnn.evaluate(old, device="cpu")
    assert (again.step, again.correct) == (steps, result.evaluated.correct)
    assert (old / "log.jsonl").read_text().startswith(log)
    assert events(old, "Started")[-1]["step"] == before
    stepped = events(old, "Stepped")[steps_logged:]
    assert [line["step"] >= before for line in stepped] == [True] * len(stepped)
    assert stepped[-1]["step"] == steps - 1
    assert all(math.isfinite(line["losses"]["total_loss"]) for line in stepped)
    assert checkpoints(old)[-1].name == f"step-{steps:09d}.safetensors"


def test_an_old_run_resumed_and_a_new_one_end_as_the_old_one_did(tmp_path: Path) -> None:
    """To the bit where the environment and the processor are the same, else within 1e-3.

    With AVX2 or SSE alone, the largest difference was 3e-7.
    """
    resumed = copy_of("tiny", tmp_path)
    checkpoints(resumed)[-1].unlink()
    assert deepcnn.resume(resumed).step == STEPS["tiny"]
    assert events(resumed, "Started")[-1]["step"] == STEPS["tiny"] // 2
    preset = deepcnn.presets.tiny()
    config = dataclasses.replace(
        preset,
        model=dataclasses.replace(preset.model, widths=(4, 4, 8, 8)),
        optimizer=dataclasses.replace(preset.optimizer, learning_rate=0.1, momentum=0.97),
        steps=STEPS["tiny"],
        batch_size=128,
        device="cpu",
        precision="fp32",
        threads=1,
        summary_every=0,
        save_every=20,
        keep=2,
    )
    deepcnn.train(config, run_dir=tmp_path / "fresh")
    expected = load_file(checkpoints(OLD / "tiny")[-1])
    same = environment(tmp_path / "fresh") == environment(OLD / "tiny")
    same = same and processor() == PROCESSOR
    for run in (resumed, tmp_path / "fresh"):
        found = load_file(checkpoints(run)[-1])
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            where = f"{run.name}: {name}"
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), where
            if same:
                assert torch.equal(found[name], tensor), where
            else:
                assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-3), where
