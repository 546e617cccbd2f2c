"""Several processes that work on one training: who writes, who counts, and what all are told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import FEW, launched, score_few, score_real, seen
from tests.helpers.tiny import logged


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(2, tmp_path_factory)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(3, tmp_path_factory)


@pytest.fixture(params=[2, 3])
def some(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue({2: "two", 3: "three"}[request.param])
    return folder


def test_an_evaluation_counts_each_example_once(some: Path) -> None:
    """Also where there are fewer blocks of four than processes."""
    expected = score_few()
    assert [total for _, total, _ in expected] == list(FEW)
    for process in seen(some):
        for (correct, total, loss), found in zip(expected, process["few"], strict=True):
            assert found == [correct, total, pytest.approx(loss, rel=1e-6)]


def test_three_processes_score_the_real_test_set_as_one(three: Path, cifar10_folder: Path) -> None:
    correct, total, loss = score_real()
    assert total == 10_000
    for process in seen(three):
        assert process["real"] == [correct, total, pytest.approx(loss, rel=1e-6)]


def test_every_process_returns_the_same_result(some: Path) -> None:
    first, *others = seen(some)
    assert first["whole"]["run"] == str(some / "whole")
    assert first["whole"]["step"] == first["resumed"]["step"] == 8
    (scored,) = first["whole"]["scores"]
    assert scored["total"] == 512
    assert first["resumed"]["scores"] == first["whole"]["scores"]
    for other in others:
        assert other["whole"] == first["whole"]
        assert other["resumed"] == first["resumed"]


def test_two_trainings_of_one_program_are_two_runs(two: Path) -> None:
    """A restarted job finds the run that it began; a second training is none of that."""
    first, second = seen(two)
    assert [run["step"] for run in first["unnamed"]] == [1, 2]
    assert first["unnamed"][0]["run"] != first["unnamed"][1]["run"]
    assert second["unnamed"] == first["unnamed"]


def test_only_the_first_process_writes(some: Path) -> None:
    for other in seen(some)[1:]:
        assert other["written"] == []


def test_no_network_holds_the_group_of_processes_when_it_ends(some: Path) -> None:
    """Whoever lets go of it last may wait for ever."""
    for process in seen(some):
        assert len(process["left"]) >= 5
        assert set(process["left"]) == {0}


def test_data_are_fetched_once(two: Path) -> None:
    seen(two)
    assert json.loads((two / "answers.json").read_text()) == 1
    assert (two / "fetched" / "config.json").is_file()


def test_settings_that_cannot_be_are_one_clear_error(two: Path, three: Path) -> None:
    for folder, message in (
        (two, "batch_size: expected at least one example for each of 2 processes, found 1"),
        (three, "towers: 3 processes were started, each of which has one device; leave out"),
    ):
        for rank, process in enumerate(seen(folder)):
            text, told = process["error"]
            assert text.startswith(message)
            assert rank or not told


def started_by_a_launcher(folder: Path, job: str, *arguments: str) -> str:
    """Run the program as a launcher does that starts it again; return what it says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job_of_one: dict[str, Any] = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": port}
    environment = {name: str(value) for name, value in job_of_one.items()}
    environment |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": job}
    done = subprocess.run(
        [sys.executable, "-m", "deepcnn", "train", "tiny", "--summary-every", "0", *arguments],
        cwd=folder,
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_launcher_that_starts_a_job_again_finds_its_run_and_no_other(tmp_path: Path) -> None:
    """The same name with other settings is another command: a name is soon used again."""
    first = ("--steps", "3")
    for arguments, goes_on in (
        (first, False),
        (first, True),
        ((*first, "--seed", "7"), False),
        ((*first, "--seed", "7"), True),
    ):
        said = started_by_a_launcher(tmp_path, "night", *arguments)
        assert ("the same job began this run, and goes on with it." in said) == goes_on
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert [event["step"] for event in logged(run, "Started")] == [0, 3]
