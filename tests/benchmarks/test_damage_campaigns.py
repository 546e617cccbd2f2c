"""The campaigns that damage what a run stores, and that follow one while it saves, in short."""

from __future__ import annotations

import json
import random
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from deepcnn.errors import RunError
from deepcnn.runs import checkpoint
from deepcnn.runs.run import Run
from tests.benchmarks.conftest import Import


def test_a_short_campaign_finds_every_damage(
    benchmark: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage = benchmark("faults.damage")
    monkeypatch.setattr(damage, "STEPS", 4)
    monkeypatch.setattr(damage, "EVERY", 1)
    found = list(damage.campaign(40, 0, 200, tmp_path))
    assert [each for each in found if not each["ok"]] == []
    assert len(found) == 41
    assert found[-1]["found"] == found[-1]["count"] == 200
    kinds = {kind for each in found[:-1] for kind in each["damage"]}
    assert kinds == {hurt.__name__ for hurt in damage.HURTS}


def test_a_campaign_fails_where_damage_is_not_looked_for(
    benchmark: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then flipped bits are accepted, of both kinds of files."""

    def accept(self: Run, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_bytes()))
        except ValueError as error:
            raise RunError(name) from error

    def same(*_: object) -> str:
        return "the same for all"

    damage = benchmark("faults.damage")
    monkeypatch.setattr(damage, "STEPS", 4)
    monkeypatch.setattr(damage, "EVERY", 1)
    monkeypatch.setattr(damage, "HURTS", (damage.flip,))
    monkeypatch.setattr(checkpoint, "digest", same)
    monkeypatch.setattr(damage.Run, "read", accept)
    run = damage.trained(tmp_path / "run")
    one = damage.attempt(lambda: damage.case_of_checkpoints(run, random.Random(1), resumed=False))
    assert not one["ok"]
    assert damage.flips(run, 60, random.Random(0))["problems"]


def test_followers_of_a_run_that_saves_all_the_time_miss_and_double_nothing(
    benchmark: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = benchmark("faults.follow")
    monkeypatch.setattr(follow, "CHECKED", 3)
    found = follow.campaign(tmp_path, 2.0, 2, Thread)
    assert [each["problems"] for each in found] == [[], []]
    assert all(each["scored"] >= 2 for each in found)
    assert all(each["saved"] > 10 for each in found)


@pytest.mark.endurance
def test_a_thousand_damages_and_ten_thousand_flipped_bits_are_found(
    benchmark: Import, tmp_path: Path
) -> None:
    log = tmp_path / "damage.jsonl"
    assert benchmark("faults.damage").main(["--cases", "1000", "--log", str(log)]) == 0
    assert len(log.read_text().splitlines()) == 1001


@pytest.mark.endurance
def test_three_followers_in_processes_of_their_own_miss_and_double_nothing(
    benchmark: Import,
) -> None:
    assert benchmark("faults.follow").main(["--seconds", "60", "--followers", "3"]) == 0
