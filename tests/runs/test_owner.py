"""A checkpoint says which run it is of, and nothing that does not change numbers."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.errors import CheckpointError
from deepcnn.runs.owner import Owner
from deepcnn.runs.trained_on import TrainedOn
from deepcnn.training.start import resume, train
from tests.helpers.stored import change, own
from tests.helpers.tiny import TINY, saved, tiny, transform_of, with_inputs, with_optimizer

ON = TrainedOn(transform_of(TINY), ("a", "b"), content={"train": "crc32c 00000001"})


def said(config: Config) -> dict[str, Any]:
    return Owner.of(config, ON).to_dict()


def test_two_trainings_that_differ_in_what_changes_no_number_give_the_same_bytes(
    tmp_path: Path,
) -> None:
    train(tiny(steps=6, save_every=3), run_dir=tmp_path / "one")
    other = tiny(
        steps=7,
        save_every=2,
        keep=9,
        log_every=1,
        evaluate_every=5,
        preset="another name",
        feed="fed",
        readers=3,
        towers=1,
    )
    train(other, run_dir=tmp_path / "deeper" / "another")
    one, another = saved(tmp_path / "one")[-1], saved(tmp_path / "deeper" / "another")[2]
    assert one.name == another.name == "step-000000006.safetensors"
    assert one.read_bytes() == another.read_bytes()
    with safe_open(one, framework="pt") as file:
        about = json.loads(file.metadata()["deepcnn"])
    assert about["run"].keys() == {"seed", "data", "settings"}
    assert str(tmp_path) not in one.read_bytes().decode(errors="replace")


@pytest.mark.parametrize(
    "changed",
    [
        tiny(seed=1),
        tiny(batch_size=64),
        tiny(precision="bf16"),
        tiny(average_decay=None),
        tiny(label_smoothing=0.1),
        tiny(class_weights="balanced"),
        tiny(order="queue"),
        tiny(feed="streamed"),
        tiny(validation_size=10),
        tiny(model=dataclasses.replace(TINY.model, widths=(8, 8, 8, 8))),
        with_inputs(TINY, flip="none"),
        with_optimizer(TINY, learning_rate=0.3),
    ],
)
def test_what_changes_numbers_is_told(changed: Config) -> None:
    assert said(changed) != said(TINY)


def test_feeds_of_the_same_batches_are_alike_and_buffers_matter_where_there_are_any() -> None:
    assert said(tiny(feed="fed")) == said(tiny(feed="preloaded"))
    assert said(tiny(feed="queued")) == said(tiny(order="queue"))
    assert said(tiny(readers=3)) == said(TINY)
    assert said(tiny(feed="queued", readers=3)) != said(tiny(feed="queued"))


def test_what_changes_no_number_or_only_its_rounding_is_not_told() -> None:
    moved = tiny(
        steps=9,
        towers=2,
        threads=2,
        device="cuda",
        steps_per_plan=5,
        keep=2,
        keep_best=True,
        compile=True,
        data="/there",
        data_dir="/where",
        log_every=1,
        save_every=1,
        evaluate_every=1,
        summary_every=1,
        preset="mine",
        start_from="/here/a.safetensors",
        evaluate_on=("train",),
    )
    assert said(moved) == said(TINY)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_what_is_told_survives_json(preset: str) -> None:
    owner = Owner.of(presets.PRESETS[preset](), ON)
    owner.check(Path("x"), 0, json.loads(json.dumps(owner.to_dict())))


def test_a_setting_that_comes_later_changes_nothing_as_long_as_it_is_at_its_default() -> None:
    """So that checkpoints of before are still of their run."""
    names = {field.name for field in dataclasses.fields(Config)}
    assert "label_smoothing" in names
    assert "label_smoothing" not in said(TINY)["settings"]


def test_a_run_does_not_go_on_from_another_runs_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    """Equal shapes and a right sum are not enough."""
    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    change(copy, seed=1)
    with pytest.raises(CheckpointError, match="seed: expected 1, found 0"):
        resume(copy)
    own(copy)
    assert resume(copy).step == 40
