"""ONNX files against the networks they were made from, on real images."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import deepcnn
from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.errors import ConfigError, ExportError, RunError
from deepcnn.inference.about import About, settings_of
from deepcnn.inference.calibration import between, fit_threshold, margins
from deepcnn.inference.classifier import Classifier, Prediction
from deepcnn.inference.extras import needed
from deepcnn.inference.load import load
from deepcnn.inference.onnx_file import ByOnnxRuntime
from deepcnn.inference.onnx_graph import to_onnx
from deepcnn.inference.trained import Trained
from tests.helpers.networks import CASES, HERE, as_trained, config_of, of_channels

COUNT = 200
APART = 1e-4  # what an export may differ by


@pytest.fixture(scope="module")
def images(cifar10_test: Arrays) -> Arrays:
    return dataclasses.replace(
        cifar10_test, images=cifar10_test.images[:COUNT], labels=cifar10_test.labels[:COUNT]
    )


def about(trained: Trained) -> About:
    on = trained.trained_on
    return About(
        classes=on.classes,
        image_shape=on.transform.image_shape,
        step=trained.step,
        averaged=trained.averaged,
        calibration=trained.calibration,
        accuracy=None,
        inputs=on.transform.to_dict(),
        settings=settings_of(trained.config),
    )


@dataclasses.dataclass
class Case:
    """A network, its file, and images for it."""

    name: str
    trained: Trained
    path: Path
    images: NDArray[np.uint8]

    @cached_property
    def original(self) -> Classifier:
        return self.trained.classifier(HERE)

    @cached_property
    def expected(self) -> list[Prediction]:
        return list(self.original.predict(self.images))

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        return np.stack([answer.probabilities for answer in self.expected])


@pytest.fixture(scope="module")
def exported(images: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export each case when it is first asked for."""

    @cache
    def case(name: str) -> Case:
        own = of_channels(images, name)
        trained = as_trained(name, own)
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        path.write_bytes(to_onnx(trained, about(trained)))
        return Case(name, trained, path, own.images)

    return case


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, exported: Any) -> Case:
    found: Case = exported(request.param)
    return found


def test_every_preset_has_a_network_and_views_that_are_tested() -> None:
    def what_counts(config: Config) -> tuple[object, ...]:
        inputs = config.inputs
        return config.model.name, inputs.crop, inputs.standardize, inputs.views

    tested = {what_counts(config_of(name)) for name in CASES}
    assert {what_counts(make()) for make in presets.PRESETS.values()} <= tested


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_answers_as_its_network(
    case: Case, runtime: Literal["onnxruntime", "openvino"]
) -> None:
    expected = case.probabilities
    assert expected.std(0).max() > 0.01  # answers that are all alike would hide a fault
    classifier = load(case.path, runtime=runtime, threads=1)
    assert (classifier.classes, classifier.image_shape) == (
        case.original.classes,
        case.original.image_shape,
    )
    found = classifier.probabilities(case.images)
    assert np.abs(found - expected).max() <= APART
    alone = np.concatenate([classifier.probabilities(case.images[i : i + 1]) for i in range(5)])
    assert np.abs(alone - found[:5]).max() <= APART
    answers = list(classifier.predict(case.images))
    doubts = [answer.unsure for answer in answers]
    assert doubts == [answer.unsure for answer in case.expected]
    assert "error" in doubts or case.trained.calibration is None
    sure = np.diff(np.sort(expected)[:, -2:]).ravel() > 2 * APART
    same = [a.label == b.label for a, b in zip(answers, case.expected, strict=True)]
    assert all(np.array(same)[sure])


def test_the_graph_itself_gives_probabilities(case: Case) -> None:
    network = ByOnnxRuntime(case.path.read_bytes(), threads=1)
    probabilities, logits = network.answers(case.images)
    assert probabilities.dtype == logits.dtype == np.float32
    assert np.abs(probabilities - case.probabilities).max() <= APART
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)


def test_only_images_that_are_unsure_are_looked_at_again(exported: Any) -> None:
    case = exported("speedrun94")
    model = onnx.load(case.path)
    names = ("unsure", "again/images")
    (branches,) = [node for node in model.graph.node if node.op_type == "If"]
    then = next(a.g for a in branches.attribute if a.name == "then_branch")
    assert any("again/images" in node.output for node in then.node)
    assert not any(names[1] in node.output for node in model.graph.node)
    places = onnx.helper.make_tensor_value_info(names[0], onnx.TensorProto.INT64, ["k", 1])
    model.graph.output.append(places)
    session = needed("onnxruntime", "export").InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    first = case.trained.answers(HERE).first_look(torch.from_numpy(case.images))
    largest = np.sort(first.numpy())[:, -2:]
    expected = np.flatnonzero(largest[:, 1] - largest[:, 0] < case.trained.calibration.margin)
    (found,) = session.run([names[0]], {"images": case.images})
    assert found.ravel().tolist() == expected.tolist()
    assert 0.2 < len(expected) / len(case.images) < 0.3
    stored = {tensor.name for tensor in model.graph.initializer}
    weights = {name for name in stored if "_network" in name and "again/" in name}
    assert weights == set()  # they are stored once


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_images_that_are_all_sure_or_all_unsure_are_answered_alike(
    exported: Any, runtime: Literal["onnxruntime", "openvino"]
) -> None:
    """So also where none is gathered to be looked at again, and in any mixture."""
    case = exported("speedrun94")
    first = case.trained.answers(HERE).first_look(torch.from_numpy(case.images)).numpy()
    unsure = margins(first) < case.trained.calibration.margin
    classifier = load(case.path, runtime=runtime, threads=1)
    for which in (~unsure, unsure, np.arange(len(unsure)) % 3 == 0):
        for count in (1, 2, 70):
            some = np.flatnonzero(which)[:count]
            found = classifier.probabilities(case.images[some])
            assert np.abs(found - case.probabilities[some]).max() <= APART


@pytest.mark.parametrize("level", [0, 7, 255])
def test_an_image_without_contrast_becomes_zeros_in_the_graph_too(
    exported: Any, level: int
) -> None:
    case = exported("tutorial")
    plain = np.full((3, 32, 32, 3), level, np.uint8)
    plain[1, ..., 0] = 255 - level  # channels that differ
    plain[2, :16] = level ^ 1  # the least contrast there is
    found = load(case.path, threads=1).probabilities(plain)
    assert np.abs(found - case.original.probabilities(plain)).max() <= APART


def test_bf16_is_openvinos_and_close(exported: Any) -> None:
    case = exported("quick")
    expected = case.probabilities
    found = load(case.path, precision="bf16", threads=1).probabilities(case.images)
    assert np.abs(found - expected).max() < 0.1
    with pytest.raises(ConfigError, match="bf16 takes --runtime openvino"):
        load(case.path, precision="bf16", runtime="onnxruntime")
    with pytest.raises(ConfigError, match="fp32 or bf16, found fp16"):
        load(case.path, precision="fp16")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_answers_without_torch(exported: Any, runtime: str, tmp_path: Path) -> None:
    case = exported("quick")
    np.save(tmp_path / "images.npy", case.images[:20])
    script = f"""
import sys
import numpy as np
import deepcnn
classifier = deepcnn.load({str(case.path)!r}, runtime={runtime!r}, threads=1)
images = np.load("images.npy")
found = np.stack([answer.probabilities for answer in classifier.predict(images)])
np.save("found.npy", found)
assert "torch" not in sys.modules
assert {runtime!r} in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout == done.stderr == ""
    expected = case.probabilities[:20]
    assert np.abs(np.load(tmp_path / "found.npy") - expected).max() <= APART


def test_the_properties_say_what_a_reader_needs(exported: Any) -> None:
    case = exported("quick")
    content = case.path.read_bytes()
    properties = ByOnnxRuntime(content, threads=1).properties
    values = {name: json.loads(value) for name, value in properties.items()}
    assert values["deepcnn"] == deepcnn.__version__
    assert tuple(values["classes"]) == case.original.classes
    assert values["image_shape"] == [32, 32, 3]
    assert "Lanczos" in values["resize"]
    assert values["calibration"]["temperature"] == case.trained.calibration.temperature
    assert values["settings"]["model"]["widths"] == [8, 16, 16]
    folders = (Path(deepcnn.__file__).parent, sys.prefix, Path.home())
    for folder in map(str, folders):
        assert len(folder) < 3 or folder.encode() not in content, folder


def test_settings_name_no_folder() -> None:
    config = dataclasses.replace(
        presets.quick(), data="/home/me/photos", data_dir="/data", start_from="/home/me/a.x"
    )
    settings = settings_of(config)
    assert (settings["data"], settings["data_dir"]) == ("photos", None)
    assert settings["start_from"] == "a.x"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut off", "cannot read it|not a network as"),
        ("empty", "cannot read it|not a network as"),
        ("noise", "cannot read it|not a network as"),
        ("other shape", "does not answer about images"),
        ("fewer classes", r"expected answers \[1, 9\], found"),
        ("no properties", "not a network as `deepcnn export` writes it"),
        ("no numbers", "not a calibration as deepcnn writes it"),
    ],
)
def test_other_files_are_refused(
    exported: Any, tmp_path: Path, runtime: Any, what: str, message: str
) -> None:
    case = exported("quick")
    content = case.path.read_bytes()
    damaged: dict[str, Callable[[], bytes]] = {
        "cut off": lambda: content[: len(content) // 2],
        "empty": lambda: b"",
        "noise": lambda: np.random.default_rng(0).bytes(5000),
        "other shape": lambda: replaced(content, b"[32, 32, 3]", b"[32, 33, 3]"),
        "fewer classes": lambda: replaced(content, b'"airplane", ', b"            "),
        "no properties": lambda: replaced(content, b"\x07deepcnn\x12\x07", b"\x07deepcnm\x12\x07"),
        "no numbers": lambda: replaced(content, b'"temperature": ', b'"temperature":-'),
    }
    path = tmp_path / "model.onnx"
    path.write_bytes(damaged[what]())
    with pytest.raises(RunError, match=re.escape(str(path)) + ".*(" + message + ")"):
        load(path, runtime=runtime, threads=1)


def replaced(content: bytes, old: bytes, new: bytes) -> bytes:
    """Replace what occurs, by as many bytes."""
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new)


def test_what_a_file_cannot_do_is_said(exported: Any, tmp_path: Path) -> None:
    path = exported("quick").path
    with pytest.raises(ConfigError, match="torch does not read"):
        load(path, runtime="torch")
    with pytest.raises(ConfigError, match="on the processor, found 'cuda'"):
        load(path, device="cuda")
    with pytest.raises(ConfigError, match="leave out step"):
        load(path, step=3)
    with pytest.raises(ConfigError, match="deepcnn export RUN --to onnx"):
        load(tmp_path, runtime="openvino")
    with pytest.raises(RunError, match="there is no such run"):
        load(tmp_path / "no.onnx")


@pytest.mark.parametrize(
    ("runtime", "extra"), [("onnxruntime", "export"), ("openvino", "openvino")]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    exported: Any, monkeypatch: pytest.MonkeyPatch, runtime: Any, extra: str
) -> None:
    path = exported("quick").path
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(ConfigError, match=rf"package {runtime} .*pip install 'deepcnn\[{extra}\]'"):
        load(path, runtime=runtime)


class Choosy(nn.Module):
    """A network whose way depends on what it sees, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, images: Tensor) -> Tensor:
        if images.sum() > 0:
            images = -images
        found: Tensor = self.head(images.mean((2, 3)))
        return found


def test_a_network_that_is_no_graph_is_refused_with_the_reason(
    images: Arrays, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = dataclasses.replace(as_trained("own", images), model=Choosy())
    with pytest.raises(
        ExportError, match=r"network \(Plain\) cannot be exported to ONNX \(Guard.+: .+\)"
    ):
        to_onnx(trained, about(trained))
    assert capfd.readouterr() == ("", "")


def test_thresholds_lie_between_examples_so_that_rounding_moves_none_over_them() -> None:
    values = np.random.default_rng(3).normal(size=201).astype(np.float32)
    for share in (0.005, 0.25, 0.5, 0.995):
        found = between(values, share)
        assert (values < found).sum() == max(1, round(share * 201))
        assert np.abs(values - found).min() > 1e-4
    largest = np.array([0.9, 0.8, 0.8, 0.7, 0.6], np.float32)
    right = np.array([True, True, True, False, True])
    assert fit_threshold(largest, right, 0.1) == pytest.approx(0.75)
    assert fit_threshold(largest, right, 0.2) == pytest.approx(0.3)
    assert fit_threshold(largest, ~right, 0.1) > 1
