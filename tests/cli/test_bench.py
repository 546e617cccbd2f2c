from __future__ import annotations

import json

import pytest

from deepcnn import bench
from deepcnn.events import Listener, Noted, ignore
from deepcnn.inference import runtimes, speed
from tests.helpers.command import run_here

SMALL = bench.Plan(presets=("tiny",), steps=31, batches=20, repetitions=2, matrix=32)
ANSWERING = [
    speed.Answering("onnxruntime", "fp32", 0.3, {"tiny": speed.Speed(0.51, 5000.0)}),
    speed.Answering("openvino", "fp32", 0.2, {"tiny": speed.Speed(0.52, 5100.0)}),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> bench.Report:
    """What is measured in short; the answers are made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPCNN_DATA", str(tmp_path_factory.mktemp("nothing")))
        patch.setattr(speed, "measure", lambda *_, **__: ANSWERING)
        return bench.measure("cpu", 1, plan=SMALL)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_prints_one_json_object_or_tables(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report: bench.Report,
    as_json: bool,
) -> None:
    def measure(device: str, threads: int, emit: Listener = ignore) -> bench.Report:
        assert (device, threads) == ("cpu", 1)
        emit(Noted("Measuring"))
        return report

    monkeypatch.setattr(bench, "measure", measure)
    arguments = ["bench", "--device", "cpu", "--threads", "1", *(["--json"] if as_json else [])]
    assert run_here(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    if as_json:
        found = json.loads(out)
        fields = ("data", "rates", "answering", "limits", "layers", "environment")
        assert set(found) == {*fields, "auto", "otherwise"}
        assert set(found["layers"][0]) == {"name", "forward", "backward"}
        assert found["environment"]["threads"] == 1
        assert found["answering"][0]["speeds"] == {"tiny": {"one": 0.51, "many": 5000.0}}
        assert found["auto"] == {"fp32": ["onnxruntime", "openvino"], "bf16": ["openvino"]}
        assert found["otherwise"] == speed.otherwise(ANSWERING)
    else:
        for text in ("Measuring", "training tiny", "conv2", "softmax_linear", "GFLOP/s"):
            assert text in out
        (line,) = (line for line in out.splitlines() if line.startswith("│ onnxruntime"))
        assert [cell.strip() for cell in line.strip("│").split("│")] == [
            *("onnxruntime", "fp32", "0.30 s", "0.51 ms", "5,000")
        ]
        unbroken = " ".join(out.split())
        assert runtimes.described() in unbroken
        (told,) = speed.otherwise(ANSWERING)
        assert "openvino answers about one image in fp32 1.50 times" in told
        assert told in unbroken
