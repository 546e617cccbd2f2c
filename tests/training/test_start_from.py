"""Trainings that begin with what another run learned."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import deepcnn
from deepcnn import presets
from deepcnn.cli.train import parse_options
from deepcnn.config import Config
from deepcnn.errors import ConfigError, DeepcnnError, RunError
from deepcnn.inference.load import load
from deepcnn.inference.parent import open_parent
from deepcnn.settings import ModelConfig
from deepcnn.training.start import resume, train
from tests.helpers.own_data import images_of
from tests.helpers.stored import change
from tests.helpers.tiny import last, logged, tensors, tiny, with_optimizer


def gray_data(folder: Path) -> Path:
    """Write gray images of three classes, of another size than those of `tiny`."""
    folder.mkdir()
    for split, count in (("train", 96), ("test", 30)):
        images, labels = images_of(count, 20, 20, 1)
        np.savez(folder / f"{split}.npz", images=images, labels=labels)
    return folder


def short(**changes: object) -> Config:
    return tiny(steps=2, save_every=1, **changes)


def test_a_run_begins_with_the_averaged_weights_of_another(tiny_run: Path, tmp_path: Path) -> None:
    config = with_optimizer(short(average_decay=0.5), learning_rate=1e-30)
    result = train(config, run_dir=tmp_path / "run", start_from=tiny_run)
    begun, expected = tensors(result.run), open_parent(tiny_run).weights
    for name, weight in expected.items():
        for kind in ("model", "average"):
            torch.testing.assert_close(begun[f"{kind}.{name}"], weight, rtol=0, atol=1e-12)
    about = json.loads((result.run / "inputs.json").read_text())["began_with"]
    assert about["path"] == str(tiny_run)
    assert (about["step"], about["averaged"], about["data"]) == (40, True, "synthetic")
    (event,) = logged(result.run, "BeganWith")
    assert event["sha256"] == about["sha256"]
    assert event["text"].endswith(
        "took conv1, conv2, local3, local4, softmax_linear; new: nothing."
    )


def test_other_data_take_what_fits_and_the_network_answers_about_them(
    tiny_run: Path, tmp_path: Path
) -> None:
    data = gray_data(tmp_path / "data")
    run = train("tiny", run_dir=tmp_path / "run", data=data, steps=2, start_from=tiny_run).run
    about = json.loads((run / "inputs.json").read_text())["began_with"]
    assert about["taken"] == ["conv1", "conv2", "local4"]
    assert about["refitted"] == ["conv1"]
    assert about["left"].keys() == {"local3", "softmax_linear"}
    images, _ = images_of(3, 20, 20, 1)
    assert load(run).probabilities(images).shape == (3, 3)


def test_a_start_that_was_killed_begins_with_the_same_and_with_nothing_else(
    tiny_run: Path, tmp_path: Path
) -> None:
    parent = Path(shutil.copytree(tiny_run, tmp_path / "parent"))
    run = train(short(), run_dir=tmp_path / "run", start_from=parent).run
    expected = last(run)
    shutil.rmtree(run / "checkpoints")
    resume(run)
    assert last(run) == expected
    shutil.rmtree(parent)
    train(tiny(steps=40, save_every=20, seed=5), run_dir=parent)  # another network
    assert resume(run).step == 2  # needs it no more
    assert last(run) == expected
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match=r"changed since this run began with it: .*SHA-256"):
        resume(run)
    shutil.rmtree(parent)
    with pytest.raises(DeepcnnError, match="found nothing there"):
        resume(run)


def test_a_resumed_run_has_the_rates_of_one_that_was_not_stopped(
    tiny_run: Path, tmp_path: Path
) -> None:
    """Which layers are old must still be known when nothing is taken again."""
    config = with_optimizer(tiny(steps=4, save_every=2, keep=2), old_layers_rate=0.1)
    data = str(gray_data(tmp_path / "data"))
    whole = train(config, run_dir=tmp_path / "run", data=data, start_from=tiny_run).run
    expected = last(whole)
    (whole / "checkpoints" / "step-000000004.safetensors").unlink()
    resume(whole)
    assert last(whole) == expected


def test_old_layers_learn_at_their_own_rate(tiny_run: Path, tmp_path: Path) -> None:
    data = str(gray_data(tmp_path / "data"))
    moved = {}
    for rate in (1e-30, 0.25, 1.0):
        config = with_optimizer(tiny(steps=1), old_layers_rate=rate, momentum=0.0)
        name = f"run {rate}"
        moved[rate] = tensors(
            train(config, run_dir=tmp_path / name, data=data, start_from=tiny_run).run
        )
    for name in ("conv1.weight", "conv2.bias", "local4.weight", "local3.weight"):
        still, slow, fast = (moved[rate][f"model.{name}"] for rate in (1e-30, 0.25, 1.0))
        if name == "local3.weight":  # new here
            assert torch.equal(slow, fast)
            assert torch.equal(still, fast)
        else:
            assert not torch.equal(still, fast)
            torch.testing.assert_close(slow - still, 0.25 * (fast - still), rtol=1e-3, atol=1e-8)


def test_the_network_is_that_of_the_run_unless_another_is_named(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "wider"
    shutil.copytree(tiny_run, run)
    change(run, preset="fashion", model={"name": "speednet", "widths": [5, 6, 7]})
    started = ["--start-from", str(run)]
    assert parse_options(started).config.model == ModelConfig("speednet", (5, 6, 7))
    assert parse_options(started).config.preset == "fashion"
    assert parse_options(["quick", *started]).config.preset == "quick"
    assert parse_options(["quick", *started]).config.model.widths == (5, 6, 7)
    assert parse_options(["tutorial", *started]).config.model == presets.tutorial().model
    named = ["--model.widths", "1", "2", "3"]
    assert parse_options(["quick", *started, *named]).config.model.widths == (1, 2, 3)
    named = ["--model.name", "speednet"]
    assert parse_options(["tutorial", *started, *named]).config.model.widths == (5, 6, 7)
    assert parse_options(["--start-from", str(tmp_path)]).config.preset == "quick"


def test_widths_that_do_not_fit_begin_nothing(tiny_run: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(short(), model=ModelConfig("tutorial", (16, 17, 64, 64)))
    with pytest.raises(ConfigError, match=r"--model\.name tutorial --model\.widths 16 16 64 64"):
        train(config, run_dir=tmp_path / "run", start_from=tiny_run)
    assert not (tmp_path / "run").exists()


def test_python_takes_the_run_as_a_path_and_its_widths(tiny_run: Path, tmp_path: Path) -> None:
    result = deepcnn.train(
        "tutorial",
        data="synthetic",
        run_dir=tmp_path / "run",
        start_from=tiny_run,
        steps=1,
        batch_size=8,
        order="epochs",
    )
    stored = json.loads((result.run / "config.json").read_text())
    assert stored["model"]["widths"] == [16, 16, 64, 64]
    assert stored["start_from"] == str(tiny_run)
