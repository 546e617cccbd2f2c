"""What a resumption finds of a process that was killed, or of another that came between."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from deepcnn import atomic
from deepcnn.config import Config
from deepcnn.errors import RunError
from deepcnn.runs import checkpoint
from deepcnn.training.start import resume, train
from tests.helpers.tiny import last, logged, saved, tiny

JUDGED = tiny(
    steps=4,
    save_every=1,
    keep=1,
    evaluate_every=1,
    keep_best=True,
    validation_size=20,
    batch_size=8,
    model=dataclasses.replace(tiny().model, widths=(4, 4, 8, 8)),
)


class KilledError(Exception):
    """Ends what would be killed."""


def test_the_best_checkpoint_is_kept_before_its_score_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a kill between both would leave a best score without its checkpoint."""
    train(JUDGED, run_dir=tmp_path / "peace")
    save = checkpoint.save

    def killed(directory: Path, step: int, *arguments: Any, **named: Any) -> Path:
        if directory.name == "best":
            raise KilledError
        return save(directory, step, *arguments, **named)

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        with pytest.raises(KilledError):
            train(JUDGED, run_dir=run)
    assert [path.name for path in saved(run)] == ["step-000000001.safetensors"]
    resume(run)
    assert best(run) == best(tmp_path / "peace")
    told = [[e["step"] for e in logged(tmp_path / r, "Evaluated")] for r in ("run", "peace")]
    assert told[0] == told[1]


def best(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "checkpoints" / "best").iterdir()}


def test_what_a_killed_process_had_not_yet_removed_is_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(JUDGED, run_dir=run)
    names = sorted(path.name for path in run.rglob("*"))
    end, kept = saved(run)[-1], run / "checkpoints" / "best"
    for folder, name in ((run, "config.json"), (end.parent, end.name), (kept, end.name)):
        (folder / f".{name}.0123abcd{atomic.TEMPORARY}").write_bytes(b"half")
    tensors = checkpoint.load(end).tensors
    checkpoint.save(end.parent, 2, tensors, keep=99)
    checkpoint.save(kept, 0, tensors, keep=99)
    resume(run)
    assert sorted(path.name for path in run.rglob("*")) == names


def test_a_run_that_was_replaced_while_its_data_were_read_is_not_mixed_with_the_new_one(
    tmp_path: Path,
) -> None:
    run, other = tmp_path / "run", dataclasses.replace(JUDGED, seed=1)
    train(JUDGED, run_dir=run)

    def meanwhile(config: Config) -> Config:  # between the reading of the settings and the lock
        train(other, run_dir=run, overwrite=True)
        return config

    with pytest.raises(RunError, match=r"another process replaced this run.*Try again"):
        resume(run, changes=meanwhile)
    before = last(run)
    resume(run)
    assert last(run) == before
    assert Path(run / "config.json").read_text().count('"seed": 1') == 1


def test_the_log_reaches_the_disk_before_a_checkpoint_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint is chosen by the scores in the log."""
    done: list[str] = []
    flush, save = atomic.flush, checkpoint.save

    def flushed(path: Path) -> None:
        done.append(path.name)
        flush(path)

    def saving(directory: Path, *arguments: Any, **named: Any) -> Path:
        done.append(f"saving into {directory.name}")
        return save(directory, *arguments, **named)

    monkeypatch.setattr(atomic, "flush", flushed)
    monkeypatch.setattr(checkpoint, "save", saving)
    train(JUDGED, run_dir=tmp_path / "run")
    before = [done[i - 1] for i, what in enumerate(done) if what == "saving into checkpoints"]
    assert before == ["log.jsonl"] * JUDGED.steps


def test_the_best_checkpoint_stays_the_best_though_the_log_lost_its_score(tmp_path: Path) -> None:
    """As a power cut may leave it: the log is behind what was saved."""
    train(JUDGED, run_dir=tmp_path / "peace")
    kept = best(tmp_path / "peace")
    (name,) = kept
    assert name == "step-000000001.safetensors"  # so that a later one could take its place
    run = tmp_path / "run"
    train(dataclasses.replace(JUDGED, steps=2), run_dir=run)
    (run / "log.jsonl").write_text("")
    resume(run, changes=lambda config: dataclasses.replace(config, steps=4))
    assert best(run) == kept
