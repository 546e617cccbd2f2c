"""Exports of runs: proved before they appear; weights that are read back and trained on from."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

import deepcnn
from deepcnn import atomic, presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.errors import CheckpointError, ConfigError, DataError, DeepcnnError, ExportError
from deepcnn.exports import export
from deepcnn.inference import export as exporting
from deepcnn.inference import weights as weights_module
from deepcnn.inference.about import About
from deepcnn.inference.answered import Answered
from deepcnn.inference.answers import Answers, margins
from deepcnn.inference.calibration import Floats
from deepcnn.inference.load import load
from deepcnn.inference.onnx_file import ByOnnxRuntime, OnnxNetwork
from deepcnn.inference.proof import prove
from deepcnn.inference.trained import Trained
from deepcnn.inference.weights import read_weights
from deepcnn.settings import ModelConfig
from tests.helpers.networks import HERE, as_trained
from tests.helpers.stored import change

EXAMPLES = 210  # of the test split: enough to calibrate on


@pytest.fixture(scope="module")
def data(cifar10_train: Arrays, cifar10_test: Arrays, tmp_path_factory: Any) -> Path:
    """A few real images, in files."""
    folder: Path = tmp_path_factory.mktemp("data")
    for name, split, count in (("train", cifar10_train, 150), ("test", cifar10_test, EXAMPLES)):
        np.savez(folder / f"{name}.npz", images=split.images[:count], labels=split.labels[:count])
    return folder


def small(data: Path, **changes: Any) -> Config:
    """Return a configuration that trains two steps; without batch normalization."""
    inputs = dataclasses.replace(presets.quick().inputs, scales=())
    optimizer = dataclasses.replace(presets.mnist().optimizer, learning_rate=0.1)
    config = dataclasses.replace(
        presets.quick(),
        data=str(data),
        model=ModelConfig("mlp", (16, 16)),
        inputs=inputs,
        optimizer=optimizer,
        steps=2,
        batch_size=50,
        device="cpu",
        precision="fp32",
        threads=1,
        summary_every=0,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: Any) -> Path:
    """A run with its export."""
    run: Path = tmp_path_factory.mktemp("runs") / "made"
    deepcnn.train(small(data, average_decay=0.9), run_dir=run)
    export(run, threads=1)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, without the export."""
    copy = Path(shutil.copytree(made, tmp_path / "run"))
    shutil.rmtree(copy / "export")
    return copy


@pytest.fixture
def ready(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no graph be traced again: it is that of the run that was made."""
    content = (made / "export" / "model.onnx").read_bytes()

    def to_onnx(trained: Trained, about: About) -> bytes:
        assert about.classes == trained.trained_on.classes
        return content

    monkeypatch.setattr(exporting, "to_onnx", to_onnx)


def test_a_file_is_written_with_its_record_and_vectors(made: Path) -> None:
    folder = made / "export"
    assert sorted(p.name for p in folder.iterdir()) == ["export.json", "model.onnx", "vectors.npz"]
    record = json.loads((folder / "export.json").read_text())
    scored = deepcnn.evaluate(made, device="cpu")
    assert record["split"] == "test"
    assert record["examples"] == scored.total == EXAMPLES
    assert record["correct"] == {"run": scored.correct, "onnxruntime": scored.correct}
    assert record["accuracy"]["onnxruntime"] == scored.accuracy
    assert record["largest_difference"] <= 1e-5
    assert record["bytes"] == (folder / "model.onnx").stat().st_size
    assert record["averaged"] is True
    times = record["milliseconds"]
    assert (times["one"]["images"], times["many"]["images"]) == (1, EXAMPLES)
    assert all(t["run"] > 0 and t["onnxruntime"] > 0 for t in times.values())
    content = (folder / "model.onnx").read_bytes()
    about = About.from_properties(ByOnnxRuntime(content, threads=1).properties, "the file")
    assert about.accuracy is not None
    assert (about.accuracy.correct, about.accuracy.total) == (scored.correct, scored.total)
    assert about.settings["data"] == Path(small_data(made)).name


def test_the_vectors_are_the_runs_own_answers(made: Path) -> None:
    with np.load(made / "export" / "vectors.npz") as vectors:
        assert vectors["images"].dtype == np.uint8
        assert vectors["images"].shape == (10, 32, 32, 3)
        places = vectors["index"]
        assert (places[0], places[-1]) == (0, EXAMPLES - 1)
        images = deepcnn.load_dataset(small_data(made), "test").images[places]
        assert np.array_equal(vectors["images"], images)
        answers = list(load(made, threads=1).predict(images))
        expected = np.stack([answer.probabilities for answer in answers])
        assert vectors["probabilities"] == pytest.approx(expected, abs=1e-6)
        assert vectors["unsure"].tolist() == [answer.unsure or "" for answer in answers]


def small_data(run: Path) -> str:
    return str(json.loads((run / "config.json").read_text())["data"])


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.usefixtures("ready")
def test_a_file_that_answers_otherwise_never_appears(run: Path) -> None:
    """Here its network has another temperature than the run's."""
    path = run / "calibration.json"
    stored = path.read_bytes()
    change(run, path.name, temperature=0.7 * json.loads(stored)["temperature"])
    before = files(run)
    with pytest.raises(
        ExportError,
        match=rf"not written. Of {EXAMPLES} test images .* answers \d+ otherwise than the run, .* "
        r"for 0: a probability differs by up to 0\.\d+, where at most 0\.0001 may be",
    ):
        export(run, threads=1)
    assert files(run) == before
    path.write_bytes(stored)
    assert export(run, threads=1).path == run / "export" / "model.onnx"


@pytest.mark.usefixtures("ready")
def test_an_export_that_is_stopped_while_it_writes_leaves_no_file(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "write", fail)
    with pytest.raises(ExportError, match=r"model\.onnx: cannot be written \(No space left"):
        export(run, threads=1)
    assert not list(run.rglob("*.onnx"))


@pytest.mark.usefixtures("ready")
def test_without_the_images_it_is_refused_and_they_may_lie_elsewhere(
    run: Path, data: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    change(run, data=str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"gone.*say by --data where they lie"):
        export(run, threads=1)
    assert export(run, data=moved, threads=1).record["examples"] == EXAMPLES
    with np.load(moved / "test.npz") as test:
        np.savez(moved / "test.npz", images=test["images"][1:], labels=test["labels"][1:])
    with pytest.raises(DeepcnnError, match="the test split changed since this run began"):
        export(run, data=moved, threads=1)


def test_what_cannot_be_exported_is_said_before_anything_is_read(run: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of onnx, html, safetensors"):
        export(run, "tflite")
    with pytest.raises(ConfigError, match=r"ends in \.onnx.* found 'model.pb'"):
        export(run, out="model.pb")
    (run / "a.onnx").mkdir()
    with pytest.raises(ConfigError, match="expected a file, found the folder"):
        export(run, out=run / "a.onnx")
    with pytest.raises(DeepcnnError, match="expected a checkpoint of step 1, found 2"):
        export(run, "safetensors", step=1)


@pytest.mark.parametrize("to", ["html", "safetensors"])
@pytest.mark.parametrize(
    "given", [{"device": "cpu"}, {"threads": 1}, {"data": "there"}, {"data_dir": Path("there")}]
)
def test_what_only_onnx_needs_is_refused_for_the_others(
    run: Path, to: str, given: dict[str, Any]
) -> None:
    ((name, value),) = given.items()
    with pytest.raises(ConfigError, match=f"^{name}: found {value}, .* Leave it out for {to}$"):
        deepcnn.export(run, to, **given)
    assert not (run / "export").exists()


class Elsewhere(OnnxNetwork):
    """A network that is computed here, but for some images otherwise."""

    def __init__(self, compute: Callable[[NDArray[np.uint8]], Floats]) -> None:
        self._compute = compute

    def _block(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        logits = self._compute(images)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True), logits


def as_floats(logits: torch.Tensor) -> Floats:
    found: Floats = logits.numpy()
    return found


def test_rounding_may_decide_at_the_margin_of_a_second_look_and_nowhere_else(
    cifar10_test: Arrays,
) -> None:
    some = dataclasses.replace(
        cifar10_test, images=cifar10_test.images[:60], labels=cifar10_test.labels[:60]
    )
    trained = as_trained("speedrun94", some)
    images = torch.from_numpy(some.images)
    transform = trained.trained_on.transform
    first = margins(Answers(trained.model, transform, HERE).first_look(images)).sort()
    middle = 30

    def proof(mine: float, theirs: float, *, off: float = 0.0) -> Any:
        answers = Answers(trained.model, transform, HERE, mine)
        other = Answers(trained.model, transform, HERE, theirs)
        logits = answers.logits(images).numpy()
        answered = Answered("test", 7, False, logits, some.labels)
        network = Elsewhere(lambda x: as_floats(other.logits(torch.from_numpy(x)) * (1 + off)))
        return prove(network, in_memory(some), answered, lambda: answers)

    at = float(first.values[middle])
    same = proof(at + 1e-5, at + 1e-5)
    assert (same.holds, same.at_margin, same.examples) == (True, 0, 60)
    near = proof(at + 1e-5, at - 1e-5)
    assert (near.holds, near.at_margin) == (True, 1)
    far = proof(float(first.values[-1]), at)
    assert not far.holds
    assert far.differing > 20
    assert far.labels < far.differing
    assert not proof(at + 1e-5, at - 1e-5, off=0.01).holds
    broken = proof(at, at, off=float("nan"))
    assert (broken.differing, broken.largest) == (60, float("inf"))


def test_an_image_must_be_answered_alike_alone(cifar10_test: Arrays) -> None:
    some = dataclasses.replace(
        cifar10_test, images=cifar10_test.images[:30], labels=cifar10_test.labels[:30]
    )
    trained = as_trained("own", some)
    answers = trained.answers(HERE)

    def compute(images: NDArray[np.uint8]) -> Floats:
        logits = answers.logits(torch.from_numpy(images))
        return as_floats(logits + (torch.arange(10) == 3) * float(len(images) == 1))

    answered = Answered("test", 7, False, compute(some.images), some.labels)
    found = prove(Elsewhere(compute), in_memory(some), answered, lambda: answers)
    assert found.differing >= 9  # one is so sure that it stays


@pytest.fixture(scope="module")
def weights(made: Path) -> Path:
    """The run's weights in a file."""
    exported = export(made, "safetensors", out=made.parent / "weights.safetensors")
    assert exported.record["tensors"] == 6
    return exported.path


def newest(run: Path) -> dict[str, torch.Tensor]:
    path = sorted((run / "checkpoints").glob("step-*.safetensors"))[-1]
    return safetensors.torch.load_file(path)


def test_weights_bear_the_layers_names_and_answer_as_the_run(made: Path, weights: Path) -> None:
    stored, about = newest(made), read_weights(weights)[0]
    tensors = safetensors.torch.load_file(weights)
    assert sorted(tensors) == sorted(
        f"{layer}.{kind}"
        for layer in ("hidden1", "hidden2", "softmax_linear")
        for kind in ("weight", "bias")
    )
    for name, tensor in tensors.items():
        assert torch.equal(tensor, stored[f"average.{name}"]), name
    assert about.accuracy is not None
    assert about.accuracy.correct == deepcnn.evaluate(made, device="cpu").correct
    images = deepcnn.load_dataset(small_data(made), "test").images
    expected, found = load(made, threads=1), load(weights, threads=1)
    assert np.array_equal(found.probabilities(images), expected.probabilities(images))
    assert [a.unsure for a in found.predict(images)] == [a.unsure for a in expected.predict(images)]
    raw = export(made, "safetensors", out=made.parent / "raw.safetensors", averaged=False)
    assert torch.equal(
        safetensors.torch.load_file(raw.path)["hidden1.weight"], stored["model.hidden1.weight"]
    )


def test_the_same_weights_give_the_same_bytes(made: Path, weights: Path) -> None:
    again = export(made, "safetensors", out=made.parent / "again.safetensors")
    assert again.path.read_bytes() == weights.read_bytes()


def test_damaged_and_other_files_of_weights_are_refused(
    made: Path, weights: Path, tmp_path: Path
) -> None:
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match its own SHA-256"):
        load(path)
    path.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="expected weights as `deepcnn export"):
        load(path)
    checkpoint = sorted((made / "checkpoints").glob("step-*"))[-1]
    with pytest.raises(CheckpointError, match="expected weights as `deepcnn export"):
        load(checkpoint)


def test_a_file_that_speaks_of_more_weights_than_it_holds_gets_no_memory_for_them(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about, tensors = read_weights(weights)
    settings = about.settings | {"model": {"name": "mlp", "widths": [2000, 2000]}}
    hostile = dataclasses.replace(about, settings=settings)
    content = json.dumps(hostile.to_dict() | {"sha256": ""})
    monkeypatch.setattr(weights_module, "_digest", lambda *_: "")
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(safetensors.torch.save(tensors, {"deepcnn": content}))
    with pytest.raises(CheckpointError, match=r"hidden1\.bias: expected float32 \[2000\]"):
        load(path)


def still(data: Path, **changes: Any) -> Config:
    """Return a configuration whose steps change no weight but by nothing."""
    optimizer = dataclasses.replace(presets.mnist().optimizer, learning_rate=1e-30)
    return small(data, optimizer=optimizer, **changes)


def test_a_training_starts_from_weights(data: Path, weights: Path, tmp_path: Path) -> None:
    config = still(data, average_decay=0.5)
    result = deepcnn.train(config, run_dir=tmp_path / "run", start_from=weights)
    begun, (_, expected) = newest(result.run), read_weights(weights)
    for name, tensor in expected.items():
        for kind in ("model", "average"):
            assert torch.allclose(begun[f"{kind}.{name}"], tensor, rtol=0, atol=1e-12), name
    stored = json.loads((result.run / "config.json").read_text())
    assert stored["start_from"] == str(weights.resolve())
    own = deepcnn.train(config, run_dir=tmp_path / "own")
    assert not torch.equal(newest(own.run)["model.hidden1.weight"], expected["hidden1.weight"])


def test_a_start_that_was_killed_starts_from_them_again_and_later_needs_them_no_more(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copy(weights, tmp_path / "mine.safetensors"))
    run = deepcnn.train(small(data), run_dir=tmp_path / "run", start_from=mine).run
    expected = newest(run)
    shutil.rmtree(run / "checkpoints")
    deepcnn.resume(run)
    assert all(torch.equal(newest(run)[name], tensor) for name, tensor in expected.items())
    mine.unlink()
    assert deepcnn.resume(run).step == 2
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"mine\.safetensors: .* found nothing there"):
        deepcnn.resume(run)


@pytest.mark.parametrize("widths", [(16, 17), ()])
def test_weights_of_other_widths_start_nothing(
    data: Path, weights: Path, tmp_path: Path, widths: tuple[int, ...]
) -> None:
    config = small(data, model=ModelConfig("mlp", widths))
    message = re.escape(str(weights)) + r".*--model\.name mlp --model\.widths 16 16"
    with pytest.raises(ConfigError, match=message):
        deepcnn.train(config, run_dir=tmp_path / "run", start_from=weights)
    assert not (tmp_path / "run").exists()
