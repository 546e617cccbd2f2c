"""Trainings that are given a time: what is chosen for the data, stored, and repeated."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcnn import presets
from deepcnn.cli.train import parse_options
from deepcnn.config import Config, from_dict
from deepcnn.data.open import open_dataset
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Noted, Planned
from deepcnn.runs.run import Run
from deepcnn.settings import DataSpec
from deepcnn.team.team import Team
from deepcnn.training import loop, pacer, planning
from deepcnn.training.forecast import Costs
from deepcnn.training.pacer import Pacer
from deepcnn.training.planning import Allowance, allowance
from deepcnn.training.session import FromPython, Session
from deepcnn.training.start import resume, train
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.tiny import QUICK, last, saved

SMALL: dict[str, Any] = {
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "summary_every": 0,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 40×60 in three class folders, without another split."""
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, *images_of(90, 40, 60, 3))
    return folder


def costs(_: Config, given: FromPython, **settings: Any) -> Costs:
    """Stand in for a rehearsal, so that a plan does not depend on the machine."""
    assert given.material is not None
    assert settings["report"] is False
    return Costs(((0.0, 1.0),), 0.5, 0.0, measured=True)


def test_a_folder_alone_is_planned_for_and_the_run_can_be_repeated(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With costs that are really measured, and few epochs that help, since this is a test."""
    monkeypatch.setattr(planning, "useful_epochs", lambda _: 3)
    heard: list[Event] = []
    result = train(data=photos, budget="1m", run_dir=tmp_path / "a", emit=heard.append, **SMALL)
    (told,) = [event for event in heard if isinstance(event, Planned)]
    config = Run.open(result.run).config()
    assert config.image_size == (21, 32)
    assert (told.shape, told.original) == ((21, 32, 3), (40, 60, 3))
    assert (told.examples, told.scored, told.split, told.left_out) == (81, 9, "validation", 0)
    assert told.steps == config.steps == result.step
    assert told.enough
    assert told.before + told.training + told.scoring + told.report < 60
    assert (config.threads, config.pace, config.validation_size) == (1, (), 9)
    assert config.copies_together
    again = train(config, run_dir=tmp_path / "b")
    assert last(result.run) == last(again.run)
    (typed,) = [e.text for e in heard if isinstance(e, Noted) and "same run again" in e.text]
    words = shlex.split(typed.partition(": ")[2])
    assert words[:2] == ["deepcnn", "train"]
    options = parse_options(words[2:])
    assert (options.config, options.chosen) == (config, None)


def test_what_is_chosen_stays_and_a_recipe_gives_the_rest(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "rehearse", costs)
    monkeypatch.setattr(planning, "useful_epochs", lambda _: 1)
    settings = {**SMALL, "image_size": (16, 16), "validation_size": 30, "keep": 2}
    result = train(data=photos, run_dir=tmp_path / "run", **settings)
    config = Run.open(result.run).config()
    assert (config.image_size, config.validation_size, config.keep) == ((16, 16), 30, 2)
    assert config.copies_together
    assert config.batch_size != presets.quick().batch_size


def test_a_preset_keeps_its_settings_but_for_its_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "rehearse", costs)
    monkeypatch.setattr(pacer, "BETWEEN", 10.0)  # steps are much faster than these costs
    config = dataclasses.replace(QUICK, save_every=1000)
    allowed = Allowance(50.0, time.monotonic())
    result = train(config, budget=allowed, run_dir=tmp_path / "run")
    stored = Run.open(result.run).config()
    assert 20 <= stored.steps <= 47  # a second each, as the costs have it
    assert dataclasses.replace(stored, steps=config.steps) == config


@pytest.mark.parametrize(
    ("config", "settings", "planned"),
    [
        (None, {"data": "x"}, "recipe"),
        (None, {}, "no"),
        (None, {"data": "x", "steps": 5}, "no"),
        (None, {"data": "x", "epochs": 5}, "no"),
        (None, {"data": "x", "feed": "streamed"}, "no"),
        ("quick", {"data": "x"}, "no"),
        ("quick", {"data": "x", "budget": "2m"}, "preset"),
        (None, {"data": "x", "budget": 7}, "recipe"),
    ],
)
def test_who_says_nothing_of_steps_gets_a_plan(
    config: str | None, settings: dict[str, Any], planned: str
) -> None:
    budget = settings.pop("budget", None)
    found = allowance(config, budget, settings)
    if planned == "no":
        assert found is None
        return
    assert found is not None
    assert (found.chosen is not None) == (planned == "recipe")
    assert found.seconds == {None: 300, "2m": 120, 7: 7}[budget]


@pytest.mark.parametrize("settings", [{"steps": 5}, {"epochs": 2.0}])
def test_a_budget_beside_steps_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget: steps and epochs say how long to train, too"):
        train("tiny", budget="1m", run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "found"),
    [({"feed": "streamed"}, "--feed streamed"), ({"towers": 2}, "towers")],
)
def test_what_cannot_be_measured_is_refused(
    settings: dict[str, Any], found: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"found {found}. Say how many there are to be: --steps"):
        train("tiny", budget="1m", run_dir=tmp_path / "run", **settings)

    class Two(Team):
        count = 2

    with pytest.raises(ConfigError, match="found processes"):
        planning.check(QUICK, Two(), FromPython())


def test_a_budget_that_reading_has_used_up_is_refused_before_a_run_begins(
    photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"budget: 1 s are too little: .* Give it at least"):
        train(data=photos, budget=1, run_dir=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


# A change of steps on the way


def test_a_changed_pace_is_stored_and_gives_the_same_bits_again_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "rehearse", costs)

    class Changing(Pacer):
        """Changes at step 16, whatever the clock says."""

        def __init__(self, session: Session, *_: Any) -> None:
            self._of = session

        def look(self) -> None:
            if self._of.state.step == 16:
                steps = self._of.config.steps
                self._of.change_pace(((16, steps),), 24)

    monkeypatch.setattr(loop, "Pacer", Changing)
    config = dataclasses.replace(QUICK, save_every=5, keep=20, batch_size=32)
    allowed = Allowance(100.0, time.monotonic())
    changed = train(config, budget=allowed, run_dir=tmp_path / "a")
    stored = Run.open(changed.run).config()
    assert changed.step == stored.steps == 24
    ((at, before),) = stored.pace
    assert at == 16
    assert before > 50
    again = train(stored, run_dir=tmp_path / "b")
    assert last(again.run) == last(changed.run)
    for path in saved(changed.run)[3:]:  # the others are of steps before the change
        path.unlink()
    assert int(saved(changed.run)[-1].stem.split("-")[1]) == 15
    resume(changed.run)
    assert last(changed.run) == last(again.run)


# A part of the training set


def test_a_share_of_each_class_is_used_and_always_the_same(photos: Path) -> None:
    spec = DataSpec(data=str(photos), validation_size=9, train_size=30)
    dataset = open_dataset(spec)
    assert dataset.counts("train").tolist() == [10, 10, 10]
    assert dataset.counts("validation").tolist() == [3, 3, 3]
    whole = open_dataset(dataclasses.replace(spec, train_size=0))
    assert len(whole.split("train")) == 81
    few, all_of_them = dataset.split("train").load(), whole.split("train").load()
    ours, theirs = ({image.tobytes() for image in a.images} for a in (few, all_of_them))
    assert ours < theirs
    again = whole.fewer(30).split("train").load()
    assert np.array_equal(again.images, few.images)
    more = open_dataset(dataclasses.replace(spec, train_size=1000)).split("train")
    assert len(more) == 81
    arrays = open_dataset(DataSpec(data="synthetic", train_size=64))
    assert arrays.counts("train").sum() == len(arrays.split("train")) == 64


def test_pictures_brought_to_a_size_later_are_those_opened_at_that_size(photos: Path) -> None:
    spec = DataSpec(data=str(photos))
    later = open_dataset(spec).resized((20, 30))
    at_once = open_dataset(dataclasses.replace(spec, image_size=(20, 30))).split("train").load()
    assert later is not None
    assert np.array_equal(later.split("train").load().images, at_once.images)
    assert open_dataset("synthetic").resized((20, 30)) is None


def test_only_what_there_is_time_to_read_is_trained_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "rehearse", costs)
    monkeypatch.setattr(planning, "useful_epochs", lambda _: 2)
    monkeypatch.setattr(planning, "TRIED", 20)
    monkeypatch.setattr(planning, "READING", 1e-6)  # of the time
    heard: list[Event] = []
    result = train(data=photos, budget=60, run_dir=tmp_path / "run", emit=heard.append, **SMALL)
    (told,) = [event for event in heard if isinstance(event, Planned)]
    assert (told.examples, told.left_out, told.scored) == (20, 61, 9)
    config = Run.open(result.run).config()
    assert config.train_size == 20
    assert from_dict(dataclasses.asdict(config)) == config
