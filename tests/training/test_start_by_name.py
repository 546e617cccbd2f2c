"""Training from Python, as short as it can be asked for, and what Python then shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import deepcnn
from deepcnn import presets
from deepcnn.data.arrays import Arrays
from deepcnn.data.open import open_dataset
from deepcnn.errors import ConfigError, DataError
from deepcnn.events import Event
from deepcnn.runs.run import Run
from tests.helpers.tiny import TINY, kinds, last

QUIET: dict[str, Any] = {"summary_every": 0, "device": "cpu", "precision": "fp32", "threads": 1}


def test_a_preset_is_trained_by_its_name(tmp_path: Path) -> None:
    result = deepcnn.train("tiny", run_dir=tmp_path / "named", steps=3, **QUIET)
    assert result.step == 3
    config = dataclasses.replace(TINY, steps=3)
    assert Run(tmp_path / "named").config() == config
    deepcnn.train(config, run_dir=tmp_path / "given")
    assert last(tmp_path / "named") == last(tmp_path / "given")


def test_settings_change_a_configuration_too(tmp_path: Path) -> None:
    inputs = dataclasses.replace(TINY.inputs, crop=0.5)
    settings: dict[str, Any] = {"steps": 2, "feed": "queued", "inputs": inputs}
    deepcnn.train(TINY, run_dir=tmp_path / "run", data_dir=tmp_path, **settings)
    expected = dataclasses.replace(TINY, data_dir=str(tmp_path), **settings)
    assert Run(tmp_path / "run").config() == expected


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            "tinny",
            {},
            r"there is no preset 'tinny'; expected a Config or one of quick, speed.*tiny",
        ),
        ("tiny", {"step": 3}, "step: there is no such setting; see deepcnn.Config"),
        (TINY, {"learning_rate": 3}, "learning_rate: there is no such setting"),
        ("tiny", {"steps": 0}, "steps: expected at least 1, found 0"),
        ("tiny", {"threads": 0}, "threads: expected at least 1, found 0"),
        ("tiny", {"data": "nowhere"}, "found 'nowhere', which is neither"),
        ("tiny", {"model": "mlp"}, "'mlp' cannot be imported"),
        ("tiny", {"feed": "steamed"}, r"config\.feed: expected .*'streamed'.*, found 'steamed'"),
        ("tiny", {"steps": "3"}, r"config\.steps: expected .*int.*, found '3'"),
        ("tiny", {"inputs": {"crop": 1.0}}, r"config\.inputs: missing setting"),
    ],
)
def test_what_there_is_not_is_refused(
    tmp_path: Path, config: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        deepcnn.train(config, run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_progress_is_printed_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[Event] = []
    deepcnn.train(
        "tiny", run_dir=tmp_path / "my run", progress=True, emit=heard.append, steps=11, **QUIET
    )
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0].startswith("tiny: 49,370 parameters, 8,192 examples, steps 0 to 11 of batch 32")
    assert sum(": step 10, loss = " in line for line in lines) == 1
    assert sum(": step 11, accuracy " in line for line in lines) == 1
    assert any(line.endswith(f"evaluate '{tmp_path}/my run'") for line in lines)
    assert {"Started", "Stepped", "Saved", "Evaluated", "Finished"} <= set(kinds(heard))
    deepcnn.resume(
        tmp_path / "my run", progress=True, changes=lambda c: dataclasses.replace(c, steps=12)
    )
    assert "steps 11 to 12 of batch 32" in capsys.readouterr().out
    deepcnn.train("tiny", run_dir=tmp_path / "quiet", steps=2, **QUIET)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("preset", list(presets.PRESETS))
def test_what_python_shows_of_a_configuration_fits_on_a_screen(preset: str) -> None:
    config = presets.PRESETS[preset]()
    shown = repr(config)
    assert len(shown) < 1000
    assert "\n" not in shown
    names = {"Config": deepcnn.Config} | vars(deepcnn.config)
    assert eval(shown, names) == config  # and it is a way to write it


def test_what_python_shows_of_data_and_runs_fits_on_a_screen(
    tiny_run: Path, cifar10_test: Arrays
) -> None:
    assert repr(cifar10_test) == "<Arrays: 10,000 images 32×32×3, 10 classes>"
    assert repr(Run(tiny_run)) == f"<Run {tiny_run}>"
    source = open_dataset("synthetic").split("test")
    classifier = deepcnn.load(tiny_run, device="cpu")
    (prediction,) = classifier.predict(cifar10_test.images[0])
    for each in (source, classifier, classifier.calibration, prediction):
        assert len(repr(each)) < 1000
