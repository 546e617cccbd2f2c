"""Settings and names that nothing can be done with end in one line, and not in a traceback."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deepcnn import presets
from deepcnn.console import say, say_json
from deepcnn.data.convert import convert
from deepcnn.devices import Part
from deepcnn.errors import ConfigError, RunError
from deepcnn.inference.evaluation import evaluate
from deepcnn.inputs.fed import Expected, Fed, PythonFeed
from deepcnn.models import build
from deepcnn.models.build import build_model
from deepcnn.runs.run import Run
from deepcnn.training.checks import check_parts
from deepcnn.training.start import resume, train
from tests.helpers.command import run_here
from tests.helpers.own_data import images_of
from tests.helpers.tiny import tiny

FEW = "expected a network that can be trained in"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--threads 0", "threads: expected at least 1, found 0"),
        ("--threads 10000000000", "threads: expected at most 4,096, found 10,000,000,000"),
        (f"--seed {2**64}", f"seed: expected an integer of 64 bits, found {2**64}"),
        (f"--seed -{2**63 + 1}", "seed: expected an integer of 64 bits, found -9"),
        ("--optimizer.decay-epochs inf", "optimizer.decay_epochs: expected above 0, found inf"),
        ("--optimizer.decay-factor nan", "optimizer.decay_factor: expected above 0, found nan"),
        ("--optimizer.weight-decay -0.1", "optimizer.weight_decay: expected 0 or more, found -0.1"),
        ("--optimizer.weight-decay nan", "optimizer.weight_decay: expected 0 or more, found nan"),
        ("--optimizer.learning-rate inf", "optimizer.learning_rate: expected above 0, found inf"),
        ("--model.widths 0 1 1 1", "model.widths: expected numbers of 1 to 65,536, found (0, 1"),
        ("--model.widths -1 1 1 1", "model.widths: expected numbers of 1 to 65,536, found (-1"),
        ("--model.widths 1000000 1 1 1", "model.widths: expected numbers of 1 to 65,536, found"),
        ("--steps-per-plan 0", "steps_per_plan: expected at least 1, found 0"),
        (f"--steps {10**24}", "steps: expected at most 281,474,976,710,656, found 1,000"),
        (f"--batch-size {10**18}", "batch_size: expected at most 16,777,216, found 1,000"),
        ("--towers 100000", "towers: expected at most 4,096, found 100,000"),
        ("--inputs.contrast nan 1", "inputs.contrast: expected a least and a largest factor"),
        ("--image-size 100000 100000", "image_size: expected at most 22,369,621 pixels, found 1"),
        ("--device meta", "device: 'meta' cannot be used here"),
    ],
)
def test_train_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "tiny", *arguments.split()) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"deepcnn: {message}")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show PICTURES", "convert PICTURES new --to npz"])
@pytest.mark.parametrize(("size", "found"), [("0 0", 0), ("-3 5", -3)])
def test_no_picture_is_brought_to_no_size(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    size: str,
    found: int,
) -> None:
    arguments = ["data", *command.split(), "--image-size", *size.split()]
    assert run_here(monkeypatch, *arguments) == 1
    assert capsys.readouterr().err == f"deepcnn: image_size: expected at least 1, found {found}\n"


@pytest.mark.parametrize("command", ["train tiny --steps 1 --data", "data show", "data convert"])
@pytest.mark.parametrize("form", ["npz", "idx", "tfrecord", "cifar", "name"])
def test_arrays_are_not_brought_to_another_size_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: str,
    form: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = written(form, tmp_path)
    channels = 1 if form == "idx" else 3
    for options, wanted in (
        ("--image-size 16", f"image_size 16×16×{channels}"),
        ("--fit pad", "fit pad"),
        ("--image-size 32 40 --fit squeeze", f"image_size 32×40×{channels} and fit squeeze"),
    ):
        rest = "new --to npz " if command == "data convert" else ""
        words = f"{command} {data} {rest}{options}".split()
        assert run_here(monkeypatch, *words) == 1
        said = capsys.readouterr().err
        assert said.replace(f"{tmp_path}/", "").startswith(f"deepcnn: {wanted}: {data} (")
        assert f"holds images of 32×32×{channels} as arrays, which stay as they are" in said
        assert said.endswith(f"{data} FOLDER --to folder\n")
    assert [path.name for path in tmp_path.iterdir() if path.name != data] == []


def written(form: str, folder: Path) -> str:
    """Write a set of one form; return what it is called."""
    if form == "name":
        return "synthetic"
    images, labels = images_of(30, 32, 32, 1 if form == "idx" else 3, classes=10)
    np.savez(folder / "set.npz", images=images, labels=labels)
    if form == "npz":
        return "set.npz"
    if form == "idx":
        (folder / "set").mkdir()
        for what, array in (("images", images[..., 0]), ("labels", labels.astype(np.uint8))):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            name = f"train-{what}-idx{array.ndim}-ubyte"
            (folder / "set" / name).write_bytes(head + array.tobytes())
    else:
        convert(folder / "set.npz", folder / "set", form)  # type: ignore[arg-type]
    (folder / "set.npz").unlink()
    return "set"


def test_the_size_that_arrays_have_may_be_said_and_runs_that_said_another_go_on(
    tmp_path: Path,
) -> None:
    images, labels = images_of(40, 32, 32, 3, classes=10)
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    config = tiny(data=str(tmp_path), steps=2, image_size=(32, 32))
    run = train(config, run_dir=tmp_path / "run").run
    stored = json.loads((Path(run) / "config.json").read_text())
    stored = {k: v for k, v in stored.items() if k not in ("format", "sha256")}  # the seal
    (Path(run) / "config.json").write_text(json.dumps(stored | {"image_size": [8, 8]}))
    result = resume(run, changes=lambda c: dataclasses.replace(c, steps=3))
    assert result.step == 3
    assert evaluate(run) == result.evaluated


def test_a_network_that_memory_cannot_hold_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"model.widths: {FEW} .* widths 65536, 65536. Take"):
        build_model("mlp", widths=(65536, 65536))
    monkeypatch.setattr(build, "memory", lambda: 10**9)
    with pytest.raises(ConfigError, match=f"{FEW} 1.0 GB of memory, found one that needs 1 GB"):
        build_model("mlp", widths=(5000, 10_000))


def test_a_run_has_a_name_in_utf_8(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"'.*\\udcff': expected a name in UTF-8"),
        Run.begin(tmp_path / "\udcff", "tiny"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_the_terminal_has_no_signs_for_is_escaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("猫", "chat"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name / "1.png")
    (tmp_path / "set" / "chat" / os.fsdecode(b"\xff\x1b[31m.png")).write_bytes(b"none")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "data", "show", "set", "--skip-bad") == 0
    terminal.flush()
    lines = terminal.buffer.getvalue().decode("latin-1").splitlines()
    assert lines[0].startswith(r"left out 'set/chat/\udcff\x1b[31m.png': expected the head of")
    assert [line.split()[-1] for line in lines if line.startswith("          1 ")] == [
        "chat",
        r"\u732b",
    ]


def test_json_for_programs_is_json_whatever_a_name_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_json({"name": "\x7f\x1b\udcff猫\n"})
    text = capsys.readouterr().out
    assert text[:-1].isprintable()
    assert json.loads(text) == {"name": "\x7f\x1b\udcff猫\n"}
    say("\x1b[31m\n\x9b", to="stderr")
    assert capsys.readouterr().err == "\\x1b[31m\n\\x9b\n"


def test_a_feed_may_turn_its_images_round() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    turned = images[:, ::-1, ::-1]
    feed = PythonFeed(
        Fed(lambda _: (turned, np.array([1, 0])[::-1])), Expected(2, (4, 4, 3), (3, 4, 4), 2, 2)
    )
    batch = feed.batch(0, Part(0, 1, torch.device("cpu")))
    np.testing.assert_array_equal(batch.images, turned)
    assert batch.labels.tolist() == [0, 1]


def test_one_image_a_device_needs_more_than_a_pixel_to_normalize() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    config = dataclasses.replace(presets.tiny(), batch_size=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"two examples for each device.*; found 3 for 2"):
        check_parts(model, (3, 8, 8), config, 2)
    check_parts(model, (3, 8, 8), config, 1)
    check_parts(model, (3, 8, 8), dataclasses.replace(config, sync_batch_norm=True), 2)
    check_parts(nn.Flatten(), (3, 8, 8), config, 2)
    assert all(torch.equal(before[name], found) for name, found in model.state_dict().items())
