from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deepcnn.data.open import load_dataset
from deepcnn.errors import RunError
from deepcnn.events import Event, Noted
from deepcnn.inference import extras, runtimes, speed
from deepcnn.inference.load import Runtime, load
from deepcnn.inference.onnx_file import ByOnnxRuntime, ByOpenVino
from deepcnn.inference.speed import Answering, Precision, Speed

IMAGES = load_dataset("synthetic", "test").images[:32]


@pytest.mark.parametrize(("precision", "taken"), [("fp32", "onnxruntime"), ("bf16", "openvino")])
def test_auto_takes_what_the_table_has_first(precision: str, taken: str) -> None:
    assert runtimes.choose(precision) == taken


@pytest.mark.parametrize("only", ["onnxruntime", "openvino"])
def test_auto_takes_what_is_installed(only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "is_installed", lambda name: name == only)
    assert runtimes.choose("fp32") == only
    assert runtimes.choose("bf16") == "openvino"  # whose absence is then said


def test_what_is_installed_is_known_without_an_import() -> None:
    assert extras.is_installed("torch")
    assert not extras.is_installed("no_such_package")


def test_the_table_is_said_in_words() -> None:
    assert runtimes.described() == (
        "auto takes torch for a run, and for an ONNX file onnxruntime in fp32, openvino in bf16"
    )


@pytest.fixture(scope="module")
def measured(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What three of the ways need, and the run's export, which was written for it."""
    copy = tmp_path_factory.mktemp("copy") / "run"
    copy.mkdir()
    for entry in tiny_run.iterdir():
        (copy / entry.name).symlink_to(entry)
    told: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        ways = (("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "bf16"))
        patch.setattr(speed, "WAYS", ways)
        patch.setattr(speed, "STARTS", 1)
        patch.setattr(speed, "MANY", len(IMAGES))
        patch.setattr(speed, "CALLS", {len(IMAGES): 2, 1: 3})
        found = speed.measure({"tiny": copy}, IMAGES, device="cpu", threads=1, emit=told.append)
    texts = [event.text for event in told if isinstance(event, Noted)]
    return SimpleNamespace(found=found, run=copy, told=texts)


def test_every_way_that_is_installed_is_measured(measured: Any) -> None:
    ways = [(each.runtime, each.precision) for each in measured.found]
    assert ways == [("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "bf16")]
    for each in measured.found:
        assert 0.05 < each.start < 60
        assert list(each.speeds) == ["tiny"]
        assert each.speeds["tiny"].one > 0
        assert each.speeds["tiny"].many > 0
    assert measured.told[0] == "Exporting tiny"


@pytest.mark.parametrize(
    ("precision", "kind", "apart"), [("fp32", ByOnnxRuntime, 1e-4), ("bf16", ByOpenVino, 0.1)]
)
def test_load_takes_what_the_table_says(
    measured: Any, precision: Precision, kind: type, apart: float, tiny_run: Path
) -> None:
    classifier = load(measured.run / "model.onnx", precision=precision, threads=1)
    assert type(classifier._network) is kind
    expected = load(tiny_run, device="cpu").probabilities(IMAGES)
    assert np.abs(classifier.probabilities(IMAGES) - expected).max() <= apart


def test_without_the_packages_of_an_export_only_torch_is_measured(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "is_installed", lambda name: name == "torch")
    told: list[Event] = []
    assert speed.export_all({"tiny": tiny_run}, told.append) == {}
    (noted,) = told
    assert isinstance(noted, Noted)
    assert noted.text == "Without onnx only torch answers: pip install 'deepcnn[export]'"


def answering(runtime: Runtime, precision: Precision, start: float, *many: float) -> Answering:
    return Answering(
        runtime, precision, start, {str(i): Speed(1000 / m, m) for i, m in enumerate(many)}
    )


def test_the_time_is_that_of_the_start_and_of_all_images() -> None:
    found = answering("onnxruntime", "fp32", 0.5, 1000.0, 500.0)  # 1 and 2 ms
    assert found.seconds(1) == pytest.approx(0.5)
    assert found.seconds(2001) == pytest.approx(0.5 + 2000 * 0.0015)
    assert found.seconds(None) == pytest.approx(0.0015)


def test_where_the_machine_says_otherwise_it_is_said() -> None:
    torch = answering("torch", "fp32", 0.1, 9000.0)
    agrees = [
        torch,
        answering("onnxruntime", "fp32", 0.3, 1100.0),
        answering("openvino", "fp32", 0.4, 1000.0),
        answering("openvino", "bf16", 0.4, 2000.0),
    ]
    assert speed.otherwise(agrees) == []
    differs = [
        torch,
        answering("onnxruntime", "fp32", 0.6, 1000.0),
        answering("openvino", "fp32", 0.4, 1300.0),
    ]
    assert speed.otherwise(differs) == [
        "Here openvino answers about one image in fp32 1.50 times as fast as onnxruntime, which "
        "auto takes: --runtime openvino",
        "Here openvino answers about many images in fp32 1.30 times as fast as onnxruntime, which "
        "auto takes: --runtime openvino",
    ]
    nearly = [
        answering("onnxruntime", "fp32", 0.3, 1000.0),
        answering("openvino", "fp32", 0.29, 1030),
    ]
    assert speed.otherwise(nearly) == []  # what is as good as noise
    assert speed.otherwise([torch]) == []


def test_a_process_without_an_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"predict .*nothing\.onnx .*: there was no answer"):
        speed.seconds_to_answer(tmp_path / "nothing.onnx", tmp_path / "a.png", "onnxruntime")
