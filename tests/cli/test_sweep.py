"""`deepcnn sweep`: runs of several seeds and settings, the choice among them, and resuming."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from deepcnn.cli.main import run as cli
from deepcnn.cli.sweep import parse_options
from deepcnn.data.open import open_dataset
from deepcnn.errors import ConfigError, RunError
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import Run
from deepcnn.sweep import running
from deepcnn.sweep.jobs import Ended, Job
from tests.helpers.command import ENVIRONMENT, run_here
from tests.helpers.own_data import images_of, write_pictures
from tests.helpers.sweeping import SHORT, train_here
from tests.helpers.waiting import wait_for

GRID = ["--grid", "optimizer.learning-rate=0.0001,0.05"]


def swept(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status of a sweep, and its last event."""
    status = cli(["sweep", *arguments, "--json"])
    *_, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert last["event"] == "Swept"
    return status, last


def evaluated(run: Path) -> tuple[str, int, int]:
    (found,) = events(read_log(run / "log.jsonl"), "Evaluated")
    return found["split"], found["correct"], found["total"]


def test_settings_are_chosen_on_what_is_held_out_and_the_best_learns_from_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = train_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    arguments = ["tiny", *SHORT, "--seeds", "2", *GRID, "--dir", "found"]
    assert cli(["sweep", *arguments]) == 0
    said = capsys.readouterr().out
    rates = ["01-learning-rate=0.0001", "02-learning-rate=0.05"]
    assert begun[:4] == [f"{rate}/seed-{seed}" for seed in (0, 1) for rate in rates]
    scores = [evaluated(tmp_path / "found" / name) for name in begun[:4]]
    assert {(split, total) for split, _, total in scores} == {("validation", 819)}
    means = [scores[i][1] + scores[i + 2][1] for i in (0, 1)]
    chosen = rates[means.index(max(means))]
    assert begun[4:] == [f"final/{chosen}/seed-0"]
    final = Run.open(tmp_path / "found" / begun[4])
    assert (final.config().validation_size, evaluated(final.path)[0]) == (0, "test")
    assert len(final.read("inputs.json")["examples"]) == 10
    assert sum(final.read("inputs.json")["examples"]) == 8192
    assert "819 of the 8,192 training images" in said
    rows = [line.split() for line in said.splitlines() if line.startswith("optimizer.learning")]
    assert [row[-1] for row in rows if row[1] == "2"].count("best") == 1
    assert f"{max(means) / 2 / 819:.2%}".replace("%", " %") in said
    assert said.splitlines()[-1] == "Report: found/comparison.html"
    twin = json.loads((tmp_path / "found" / "comparison.json").read_text())
    assert len(twin["runs"]) == 5
    # The same command again trains nothing, and says the same.
    status, again = swept(capsys, *arguments, "--no-report")
    assert (status, len(begun)) == (0, 5)
    assert again["best"] == chosen
    table = [sorted(row["correct"].values()) for row in again["table"]]
    assert table == [sorted([scores[i][1], scores[i + 2][1]]) for i in (0, 1)]
    assert again["final"][0]["correct"] == {"0": evaluated(final.path)[1]}


def test_seeds_alone_are_trained_and_scored_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(monkeypatch)
    monkeypatch.chdir(tmp_path)
    arguments = ["tiny", *SHORT, "--seeds", "2", "--seed", "5", "--no-report"]
    status, found = swept(capsys, *arguments)
    assert status == 0
    folder = Path(found["folder"])
    assert folder.parent == Path("runs")
    runs = {int(run.name[5:]): evaluated(run) for run in folder.glob("seed-*")}
    assert sorted(runs) == [5, 6]
    assert {split for split, _, _ in runs.values()} == {"test"}
    (row,) = found["table"]
    assert row["correct"] == {str(seed): correct for seed, (_, correct, _) in runs.items()}
    assert (found["report"], found["final"]) == (None, [])
    assert not list(folder.glob("comparison*"))


def test_a_run_that_fails_is_told_and_the_others_go_on_until_it_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["tiny", *SHORT, "--seeds", "1", *GRID, "--final-seeds", "0", "--no-report"]
    best = "02-learning-rate=0.05/seed-0"
    with monkeypatch.context() as patch:
        train_here(patch, fail=[best])
        assert cli(["sweep", *arguments]) == 1
    said = capsys.readouterr()
    assert "optimizer.learning-rate=0.05, seed 0: failed: no luck" in said.out
    assert "Best: optimizer.learning-rate=0.0001." in said.out  # whatever the other one would be
    assert said.err.startswith(f"deepcnn: 1 of the runs failed: {best}.")
    begun = train_here(monkeypatch)
    assert swept(capsys, *arguments)[0] == 0  # found below runs/, since it is not finished
    assert begun == [best]
    assert len(list(Path("runs").iterdir())) == 1


def test_a_sweep_is_not_mixed_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(monkeypatch)
    folder = tmp_path / "sweep"
    arguments = ["sweep", "tiny", *SHORT, "--dir", str(folder), "--no-report"]
    assert cli([*arguments, "--seeds", "1"]) == 0
    with pytest.raises(RunError, match="holds another sweep"):
        cli([*arguments, "--seeds", "2"])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").touch()
    with pytest.raises(RunError, match="neither empty nor a sweep"):
        cli(["sweep", "tiny", "--dir", str(tmp_path / "taken")])
    with pytest.raises(RunError, match="expected the folder of a sweep"):
        cli(["sweep", "--resume", str(tmp_path / "taken")])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "optimizer.learning-rat=1,2"], "Did you mean optimizer.learning-rate?"),
        (["--grid", "seed=1,2"], "use --seeds"),
        (["--grid", "data=cifar10,mnist"], "would be scored on different images"),
        (["--grid", "fit=crop,pad"], "--grid fit: cannot be chosen: synthetic holds images of the"),
        (["--grid", "image-size=8,16"], "--grid image-size: cannot be chosen: synthetic holds"),
        (["--grid", "image-size=8,8 8"], "are the same setting"),
        (["--grid", "steps"], "expected FIELD=VALUE,VALUE"),
        (["--grid", "steps=5,5"], "steps=5 and steps=5 are the same setting"),
        (["--grid", "steps=5", "--grid=steps=6"], "steps: is given twice"),
        (["--grid", "optimizer.nesterov=yes"], "expected true or false, found 'yes'"),
        (["--run-dir", "x"], "--run-dir: is not of a sweep; see --dir"),
        (["--seeds", "0"], "--seeds: expected at least 1, found 0"),
        (["--jobs", "0"], "--jobs: expected at least 1, found 0"),
        (["--budget", "soon"], "--budget: expected a duration"),
        (["--resume", "x"], "leave out tiny"),
    ],
)
def test_what_it_cannot_do_is_refused(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here(monkeypatch, "sweep", "tiny", *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_grid_is_all_combinations_of_typed_values() -> None:
    grid = ["--grid", "optimizer.nesterov=true,false", "--seed", "3"]
    grid += ["--grid", "model.widths=4 4 8 8,8 8 16 16"]
    options = parse_options(["tiny", *grid, "--steps=5"])
    found = [
        (config.optimizer.nesterov, config.model.widths, config.steps, config.seed)
        for _, config in options.choices
    ]
    small, large = (4, 4, 8, 8), (8, 8, 16, 16)
    assert found == [(n, widths, 5, 3) for n in (True, False) for widths in (small, large)]
    assert options.choices[1][0] == {
        "optimizer.nesterov": "true",
        "model.widths": "8 8 16 16",
    }


def test_each_way_of_fitting_pictures_is_trained_on_pictures_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = train_here(monkeypatch)
    for split, count in (("train", 8), ("test", 2)):
        write_pictures(tmp_path / "wide" / split, *images_of(count, 20, 40, 3, classes=2))
    arguments = ["tiny", "--data", str(tmp_path / "wide"), *SHORT, "--steps=1", "--batch-size=2"]
    arguments += ["--grid", "fit=crop,pad,squeeze", "image-size=16,16 24", "--seeds", "1"]
    arguments += ["--final-seeds", "0", "--no-report", "--dir", str(tmp_path / "sweep")]
    assert swept(capsys, *arguments)[0] == 0
    seen = set()
    for name in begun:
        run = Run.open(tmp_path / "sweep" / name)
        height, width = run.config().image_size or (0, 0)
        dataset = open_dataset(run.config())
        assert dataset.split("train").shape == (height, width, 3)
        stored = run.read("inputs.json")
        assert stored["content"]["train"] == dataset.content("train")
        assert f"fit={run.config().fit},image-size={height}" in name
        seen.add(stored["content"]["train"])
    assert len(begun) == len(seen) == 6


class Clock:
    """A clock that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_trial_tells_from_its_steps_how_long_a_run_takes() -> None:
    trial = running.Trial(1000.0, Clock())
    jobs = [Job(name, []) for name in ("a", "b")]

    def hear_all() -> None:
        for step in range(100):
            for job, work in zip(jobs, (0.01, 0.02), strict=True):
                trial.heard(job, {"event": "Advanced", "work": step * work})

    with pytest.raises(running.Enough):
        hear_all()
    # A hundredth takes two seconds, after the first one: the slower of both.
    assert trial.seconds_of_a_run() == pytest.approx(1 + 200 * running.REST)
    assert trial.done() == pytest.approx(0.05)
    trial.ended(Ended(jobs[0], 0, 7.0, []), "")
    trial.ended(Ended(jobs[1], 0, 6.0, []), "")
    assert trial.seconds_of_a_run() == 7.0
    with pytest.raises(RunError, match="a: no memory"):
        trial.ended(Ended(jobs[0], 1, 6.0, []), "no memory")


def test_a_budget_that_is_too_short_is_refused_and_one_that_is_not_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_here(monkeypatch)
    monkeypatch.setattr(running.Trial, "seconds_of_a_run", lambda _: 100.0)
    arguments = ["sweep", "tiny", *SHORT, "--seeds", "3", "--no-report", "--jobs", "1"]
    with pytest.raises(ConfigError, match=r"one seed of each setting, 3 runs in all, does not fit"):
        cli([*arguments, *GRID, "--dir", str(tmp_path / "a"), "--budget", "150"])
    folder = tmp_path / "b"  # the first of its runs is finished within the trial
    assert cli([*arguments, "--dir", str(folder), "--budget", "150"]) == 0
    said = capsys.readouterr().out
    told = "A run takes about 1 min 40 s, with 1 at once: 2 min 30 s have room for 2 of 3 seeds, 2 "
    assert told in said
    assert sorted(path.name for path in folder.glob("seed-*")) == ["seed-0", "seed-1"]


def of_a_sweep(folder: Path, seeds: int, steps: int) -> list[str]:
    """Return the arguments of a sweep whose runs save often."""
    arguments = ["sweep", "tiny", "--steps", str(steps), "--seeds", str(seeds), "--json"]
    arguments += ["--save-every", "7", "--summary-every", "0", "--device", "cpu", "--threads", "1"]
    return [*arguments, "--jobs", "1", "--no-report", "--dir", str(folder)]


def compare_with_a_whole_one(
    killed: Path, table: list[Any], capsys: pytest.CaptureFixture[str], seeds: int, steps: int
) -> None:
    """Fail unless a sweep that is not killed has the same table and the same last checkpoints."""
    whole = killed.parent / "whole"
    status, expected = swept(capsys, *of_a_sweep(whole, seeds, steps)[1:])
    assert status == 0
    assert table == expected["table"]
    for run in whole.glob("seed-*"):
        name = f"{run.name}/checkpoints/step-{steps:09d}.safetensors"
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_a_sweep_that_is_killed_ends_with_the_table_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = train_here(monkeypatch)
    folder, seeds, steps = tmp_path / "killed", 2, 100
    arguments = of_a_sweep(folder, seeds, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, from 3.12 on
        process = os.fork()
    if not process:  # it sweeps until it is killed
        cli(arguments)
        os._exit(0)
    at = f"{random.choice(('seed-0', 'seed-1'))}/checkpoints/step-{random.choice((7, 28)):09d}"
    assert wait_for(lambda: (folder / f"{at}.safetensors").exists())
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    status, found = swept(capsys, *arguments[1:])
    assert status == 0
    assert begun[-1] == "seed-1"
    compare_with_a_whole_one(folder, found["table"], capsys, seeds, steps)


@pytest.mark.endurance
def test_a_sweep_that_is_killed_five_times_ends_with_the_table_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, seeds, steps = tmp_path / "killed", 5, 400
    command = [sys.executable, "-m", "deepcnn", *of_a_sweep(folder, seeds, steps)]
    for _ in range(5):
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["event"] == "RunBegan":
                    break
            time.sleep(random.uniform(0.0, 3.0))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    table = json.loads(done.stdout.splitlines()[-1])["table"]
    assert any(event["resumed"] for event in read_log(folder / "log.jsonl"))
    train_here(monkeypatch)
    compare_with_a_whole_one(folder, table, capsys, seeds, steps)
