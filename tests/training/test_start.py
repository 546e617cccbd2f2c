"""New runs and resumed ones, of programs and of jobs that are started again."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import deepcnn
from deepcnn import hardware, presets
from deepcnn.config import Config
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar
from deepcnn.errors import RunError
from deepcnn.events import Event, Noted
from deepcnn.inference.evaluation import evaluate
from deepcnn.team.team import Team
from deepcnn.training.loop import Result
from deepcnn.training.start import resume, train
from tests.helpers.tiny import QUICK, TINY, last, saved, tiny


def test_tiny_learns(tmp_path: Path) -> None:
    result = train(TINY, run_dir=tmp_path / "run")
    assert result.step == 200
    assert result.evaluated is not None
    assert (result.evaluated.split, result.evaluated.total) == ("test", 512)
    assert result.evaluated.correct >= 500  # five seeds gave 507 to 512; chance is 51


def test_a_short_quick_on_the_real_data(tmp_path: Path, cifar10_folder: Path) -> None:
    """`quick` for a fifth of its steps, at half its widths."""
    quick = presets.quick()
    config = dataclasses.replace(
        quick,
        steps=60,
        model=dataclasses.replace(quick.model, widths=(16, 48, 64)),
        summary_every=0,
        data_dir=str(cifar10_folder.parent),
    )
    result = train(config, run_dir=tmp_path / "run")
    assert result.evaluated is not None
    assert result.evaluated.total == 10_000
    # Six seeds gave 0.673 with a deviation of 0.0073, and the one that this is 0.682.
    assert result.evaluated.accuracy >= 0.65


def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(tiny(steps=2), run_dir=path)
    (path / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match=r"holds a run already.*--resume.*--overwrite"):
        train(tiny(steps=2), run_dir=path)
    assert (path / "mine.txt").exists()
    train(tiny(steps=3), run_dir=path, overwrite=True)
    assert not (path / "mine.txt").exists()
    assert len(saved(path)) == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_bytes(b"x")
    with pytest.raises(RunError, match="neither empty nor a run"):
        train(tiny(steps=3), run_dir=tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "photo.png").exists()


def test_a_folder_named_by_a_relative_path_is_stored_as_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cifar10_test: Arrays
) -> None:
    part = cifar10_test.select(slice(0, 64))
    content = cifar.TEN.encode(part.images, part.labels)
    (tmp_path / "mine").mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / "mine" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    result = train(tiny(steps=1, data="mine"), run_dir=tmp_path / "run")
    monkeypatch.chdir("/")
    assert evaluate(result.run).total == 64


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process belong to a job that is started again and again, in an empty folder."""
    monkeypatch.setattr(Team, "job", lambda _: "night 1")
    monkeypatch.chdir(tmp_path)


def again(config: Config, **settings: Any) -> tuple[Result, list[str]]:
    """Train as the job does, and return what is noted, too, but of what so few steps learn."""
    heard: list[Event] = []
    result = train(config, emit=heard.append, **settings)
    noted = [event.text for event in heard if isinstance(event, Noted)]
    return result, [text for text in noted if not text.startswith("Careful: ")]


@pytest.mark.usefixtures("job")
def test_a_job_that_is_started_again_goes_on_with_its_run() -> None:
    first, noted = again(tiny(steps=3))
    assert noted == []
    second, noted = again(tiny(steps=3))
    assert second.run == first.run
    assert noted == [f"{first.run}: the same job began this run, and goes on with it."]
    assert len(list(Path("runs").iterdir())) == 1


@pytest.mark.usefixtures("job")
def test_a_job_of_the_same_name_with_other_settings_is_another_one() -> None:
    first, _ = again(tiny(steps=3))
    before = last(first.run)
    other, noted = again(tiny(steps=3, seed=7))
    assert noted == []
    assert other.run != first.run
    assert (last(other.run) != before, last(first.run) == before) == (True, True)
    with pytest.raises(RunError, match="holds a run already"):
        again(tiny(steps=3, seed=8), run_dir=first.run)
    assert last(first.run) == before
    _, noted = again(tiny(steps=3, seed=8), run_dir=first.run, overwrite=True)
    assert noted == []
    assert last(first.run) != before


@pytest.mark.usefixtures("job")
def test_a_finished_run_is_replaced_where_that_is_asked_for_and_another_goes_on() -> None:
    config = tiny(steps=3, save_every=1)
    first, _ = again(config, run_dir="run")
    (first.run / "mine.txt").touch()
    _, noted = again(config, run_dir="run", overwrite=True)
    assert noted == []
    assert not (first.run / "mine.txt").exists()
    saved(first.run)[-1].unlink()  # killed before its last step: --overwrite began it
    (first.run / "mine.txt").touch()
    _, noted = again(config, run_dir="run", overwrite=True)
    assert len(noted) == 1
    assert (first.run / "mine.txt").exists()


def test_a_program_that_nobody_starts_again_begins_a_new_run_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(tiny(steps=1)).run != train(tiny(steps=1)).run


def test_two_trainings_in_threads_are_those_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where oneDNN multiplies float32, which is a setting of the whole process."""
    monkeypatch.setattr(hardware, "multiplies_faster_by_onednn", lambda: True)
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    # Training, scoring and the initial weights of both take turns in all sorts of ways.
    configs = {"tiny": tiny(steps=60, evaluate_every=3), "quick": QUICK}
    for name, config in configs.items():
        train(config, run_dir=tmp_path / f"{name} alone")

    def train_in_thread(name: str) -> None:
        torch.set_num_threads(1)
        for overwrite in (False, True):
            train(configs[name], run_dir=tmp_path / f"{name} beside", overwrite=overwrite)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(train_in_thread, name) for name in configs]:
            future.result(600)
    for name in configs:
        alone, beside = (saved(tmp_path / f"{name} {how}") for how in ("alone", "beside"))
        for expected, found in zip(alone, beside, strict=True):
            assert found.read_bytes() == expected.read_bytes(), found
    assert matmul.fp32_precision == before
    torch.get_float32_matmul_precision()  # raises where the setting has stayed


def test_training_does_without_torchs_compiler(tmp_path: Path) -> None:
    """Its import takes longer than all else before the first step."""
    script = f"""
import dataclasses, sys
from deepcnn import presets, train
train(dataclasses.replace(presets.tiny(), steps=1), run_dir={str(tmp_path / "run")!r})
assert not {{"torch._dynamo", "torch._inductor"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_public_names_are_these_functions() -> None:
    assert (deepcnn.train, deepcnn.resume, deepcnn.evaluate) == (train, resume, evaluate)
