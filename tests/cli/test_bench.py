from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from deepcnn import bench
from tests.helpers.command import run_here

SMALL = bench.Plan(presets=("tiny",), steps=31, batches=20, repetitions=2, matrix=32)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_command_prints_one_json_object_or_tables(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    as_json: bool,
) -> None:
    monkeypatch.setenv("DEEPCNN_DATA", str(tmp_path))
    monkeypatch.setattr(bench, "measure", functools.partial(bench.measure, plan=SMALL))
    arguments = ["bench", "--device", "cpu", "--threads", "1", *(["--json"] if as_json else [])]
    assert run_here(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    if as_json:
        report = json.loads(out)
        assert set(report) == {"data", "rates", "limits", "layers", "environment"}
        assert set(report["layers"][0]) == {"name", "forward", "backward"}
        assert report["environment"]["threads"] == 1
    else:
        for text in ("synthetic images", "training tiny", "conv2", "softmax_linear", "GFLOP/s"):
            assert text in out
