from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deepcnn.inference.calibration import Calibration
from deepcnn.inference.load import load
from tests.helpers.command import run_here


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy without a calibration."""
    path = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    (path / "calibration.json").unlink()
    return path


def test_what_is_found_is_printed_stored_and_used(
    run: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, "calibrate", str(run), "--device", "cpu", "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = Calibration.from_dict(json.loads(out), "printed")
    assert load(run, device="cpu").calibration == found
    assert found == load(tiny_run, device="cpu").calibration  # as at the end of the training
    assert run_here(monkeypatch, "calibrate", str(run), "--error", "0.9", "--step", "20") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Found on 512 test images, for step 20:"
    other = load(run, step=20, device="cpu").calibration
    assert other is not None
    assert lines[1] == f"  temperature {other.temperature:.3f}"
    assert other.error == 0.9
    assert lines[2].endswith(" sure: at most 90.0% of such answers are wrong")
    assert load(run, device="cpu").calibration is None  # it is of another checkpoint now


def test_too_few_examples_are_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    (tmp_path / "few").mkdir()
    names = json.loads((run / "inputs.json").read_text())["classes"]
    (tmp_path / "few" / "classes.json").write_text(json.dumps(names))
    np.savez(tmp_path / "few" / "test.npz", images=images, labels=np.arange(20) % 10)
    arguments = ("calibrate", str(run), "--data", str(tmp_path / "few"))
    assert run_here(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Found on 20 test images, for step 40:",
        "  too few for a temperature or thresholds",
    ]


@pytest.mark.parametrize("error", ["0", "1", "-0.1", "nan"])
def test_an_error_that_is_no_share_is_refused(
    run: Path, error: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, "calibrate", str(run), f"--error={error}") == 1
    assert "error: expected above 0 and below 1, found" in capsys.readouterr().err
    assert not (run / "calibration.json").exists()
