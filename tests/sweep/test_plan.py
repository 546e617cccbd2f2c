"""Plans of sweeps, their tables, and what is chosen."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from deepcnn import presets
from deepcnn.cli.train import parse_options
from deepcnn.config import Config
from deepcnn.errors import RunError
from deepcnn.sweep.plan import (
    Plan,
    Row,
    Score,
    Setting,
    Task,
    best_of,
    command_of,
    folder_name,
    not_told_apart,
    read_plan,
    rows_of,
    score_of,
    seeds_that_fit,
    why,
    write_plan,
)

TINY = presets.tiny()


def setting(name: str, **changes: object) -> Setting:
    return Setting(name, {"x": name}, dataclasses.replace(TINY, **changes))  # type: ignore[arg-type]


PLAN = Plan((setting("a", batch_size=8), setting("b", validation_size=50)), (3, 4, 5), 2, 60.0)


def table(found: dict[str, list[int | None]], losses: dict[str, float] | None = None) -> list[Row]:
    """Return a table of 100 images, by setting and seed; None: not finished."""
    tasks = [Task(setting(name), seed, "") for name in found for seed in range(len(found[name]))]
    scores = {
        f"{name}/seed-{seed}": Score("validation", correct, 100, (losses or {}).get(name, 1.0))
        for name in found
        for seed, correct in enumerate(found[name])
        if correct is not None
    }
    return rows_of(tasks, scores, [])


def best(found: dict[str, list[int | None]], losses: dict[str, float] | None = None) -> str | None:
    chosen = best_of(table(found, losses))
    return None if chosen is None else chosen.setting.name


def test_every_setting_has_its_first_seed_before_any_its_second() -> None:
    names = [task.name for task in PLAN.tasks()]
    assert names == [f"{name}/seed-{seed}" for seed in (3, 4, 5) for name in ("a", "b")]
    fewer = dataclasses.replace(PLAN, kept=1)
    assert [task.name for task in fewer.tasks()] == ["a/seed-3", "b/seed-3"]
    assert [task.config.seed for task in PLAN.tasks()[:3]] == [3, 3, 4]


def test_the_best_is_trained_on_everything() -> None:
    final = PLAN.final_tasks(PLAN.settings[1])
    assert [task.name for task in final] == ["final/b/seed-3", "final/b/seed-4"]
    assert final[0].config.validation_size == 0
    assert final[0].config.evaluate_on == ("test",)


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    write_plan(tmp_path, dataclasses.replace(PLAN, kept=2))
    stored = read_plan(tmp_path)
    assert stored == dataclasses.replace(PLAN, kept=2)
    assert PLAN.same(stored)
    assert not PLAN.same(dataclasses.replace(stored, seeds=(3, 4)))
    values = json.loads((tmp_path / "sweep.json").read_text())
    del values["settings"][0]["config"]["steps"]
    (tmp_path / "sweep.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"sweep\.json: not the plan .*missing setting 'steps'"):
        read_plan(tmp_path)


def test_the_command_of_a_run_says_its_configuration(tmp_path: Path) -> None:
    config = dataclasses.replace(
        TINY,
        steps=7,
        validation_size=50,
        inputs=dataclasses.replace(TINY.inputs, contrast=None, scales=((0.0, 0.5),)),
        optimizer=dataclasses.replace(TINY.optimizer, nesterov=False, freeze=(("conv1", 0.5),)),
    )
    task = Task(Setting("", {}, config), 9, "")
    _, dash_m, program, verb, *arguments = command_of(tmp_path, task, None)
    assert (dash_m, program, verb) == ("-m", "deepcnn", "train")
    options = parse_options(arguments)
    assert options.config == dataclasses.replace(config, seed=9)
    assert (options.run_dir, options.report, options.json) == (tmp_path / "seed-9", False, True)


def test_most_right_answers_are_the_best() -> None:
    assert best({}) is None
    assert best({"a": [None]}) is None
    assert best({"a": [50, 60], "b": [56, 56], "c": [56, 55]}) == "b"


def test_of_equals_the_lower_loss_is_the_best_and_then_the_first() -> None:
    equal: dict[str, list[int | None]] = {"a": [50, 60], "b": [60, 50], "c": [55, 55]}
    assert best(equal, {"a": 2.0, "b": 0.5}) == "b"
    assert best(equal) == "a"
    assert best(equal, {"a": math.nan, "b": math.nan}) == "c"


def test_a_setting_with_a_run_that_failed_is_not_chosen() -> None:
    assert best({"a": [99, None], "b": [50, 51]}) == "b"
    assert best({"a": [99, None], "b": [50, None]}) == "a"  # so far


def test_settings_are_told_apart_by_pairs_of_seeds() -> None:
    # The seeds differ more than the settings do, so only pairs tell.
    base = np.array([40, 60, 50, 70, 30])
    found: dict[str, list[int | None]] = {
        "best": (base + np.array([5, 6, 5, 4, 5])).tolist(),
        "worse": base.tolist(),
        "close": (base + np.array([9, 0, 5, 1, 8])).tolist(),
    }
    rows = table(found)
    assert [row.setting.name for row in rows if row.is_best] == ["best"]
    assert [row.setting.name for row in not_told_apart(rows)] == ["close"]
    paired = stats.ttest_rel(found["best"], found["close"]).pvalue
    assert paired > 0.05 > stats.ttest_rel(found["best"], found["worse"]).pvalue
    one = table({"a": [90], "b": [10]})
    assert [row.setting.name for row in not_told_apart(one)] == ["b"]


def test_the_table_has_students_interval() -> None:
    (row,) = table({"a": [50, 61, 57]})
    values = row.to_dict()
    low, high = stats.t.interval(0.95, 2, np.mean([0.5, 0.61, 0.57]), stats.sem([0.5, 0.61, 0.57]))
    assert values["interval"] == pytest.approx((low, high))
    assert values["mean"] == pytest.approx(0.56)
    assert values["correct"] == {"0": 50, "1": 61, "2": 57}


@pytest.mark.parametrize(
    ("seconds", "at_once", "seeds"),
    [(1000, 1, 3), (80, 1, 3), (79, 1, 2), (60, 1, 2), (39, 1, 0), (40, 2, 3), (30, 2, 2)],
)
def test_as_many_seeds_fit_as_there_is_time_for(seconds: float, at_once: int, seeds: int) -> None:
    # Two settings of three seeds and two final runs, of 10 s each.
    assert seeds_that_fit(PLAN, seconds, 10.0, at_once) == seeds


def test_why_a_run_failed_is_its_own_last_word() -> None:
    said = ["Traceback …", "deepcnn: the loss is not finite", "warning: something"]
    assert why(1, said) == "the loss is not finite"
    assert why(1, said[2:]) == "warning: something"
    assert why(143, []) == "exit status 143"
    assert why(-9, []) == "killed by SIGKILL, as by a machine without memory"


def test_names_of_folders_are_harmless() -> None:
    assert folder_name(3, {"optimizer.learning-rate": "0.1"}) == "03-learning-rate=0.1"
    assert folder_name(1, {"start-from": "../a b/\n"}) == "01-start-from=.._a_b_"
    assert len(folder_name(1, {"x": "9" * 500})) < 90


def test_another_run_in_the_place_of_one_is_an_error(tmp_path: Path, tiny_run: Path) -> None:
    (tmp_path / "seed-0").symlink_to(tiny_run)

    def of(config: Config) -> Score | None:
        return score_of(tmp_path, Task(Setting("", {}, config), 0, ""))

    from deepcnn.runs.run import Run

    own = Run.open(tiny_run).config()
    assert of(own) is not None
    with pytest.raises(RunError, match=r"seed-0: holds a run with another batch_size"):
        of(dataclasses.replace(own, batch_size=9))
