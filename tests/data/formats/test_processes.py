"""Processes that help to read pictures: their answers, their end, and doing without them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deepcnn
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import decoding, processes
from deepcnn.errors import DataError

OWN = os.getpid()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let two processes that are there already help after the first part."""
    monkeypatch.setattr(processes, "LOOK", -1.0)
    monkeypatch.setattr(processes, "WORTH", -1.0)
    monkeypatch.setattr(processes, "cores", lambda: 2)
    start_two()
    yield
    processes.end_all()


def start_two() -> None:
    processes.start(eval)
    processes.start(eval)


def spread(parts: list[str]) -> list[Any]:
    """Evaluate Python's expressions."""
    return list(processes.spread(eval, parts, lambda: 1.0))


PID = "__import__('os').getpid()"


def other_pid() -> int:
    """Return the first process that helps."""
    with closing(processes.spread(eval, itertools.repeat(PID), lambda: 1.0)) as answers:
        return next(int(pid) for pid in answers if pid != OWN)


def folder_of(images: Arrays, place: Path) -> Path:
    for index, image in enumerate(images.images):
        path = place / "set" / "ab"[index % 2] / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(decoding.encode(image))
    return place / "set"


def test_answers_come_in_order_from_other_processes_which_are_kept() -> None:
    parts = [PID] + [f"({i}, {PID})" for i in range(40)]
    own, *answers = spread(parts)
    assert own == OWN
    assert [i for i, _ in answers] == list(range(40))
    pids = {pid for _, pid in answers}
    assert OWN not in pids
    assert 1 <= len(pids) <= 2
    again = {pid for _, pid in spread(parts)[1:]}
    assert again <= pids


def test_until_they_are_there_the_work_goes_on_here() -> None:
    processes.end_all()
    with closing(processes.spread(eval, itertools.repeat(PID), lambda: 1.0)) as answers:
        assert len(list(itertools.takewhile(OWN.__eq__, answers))) > 1


def test_an_error_of_the_work_is_raised_here() -> None:
    failing = "(_ for _ in ()).throw(__import__('deepcnn').errors.DataError('no picture'))"
    with pytest.raises(DataError, match="no picture"):
        spread([PID, "1", failing, "2"])
    assert spread([PID, PID])[1] != OWN


def test_whoever_stops_early_leaves_nothing_half_asked() -> None:
    answers = processes.spread(eval, [PID, *map(str, range(100))], lambda: 1.0)
    assert [next(answers), next(answers), next(answers)] == [OWN, 0, 1]
    answers.close()
    assert spread([PID, "7", "8"]) == [OWN, 7, 8]


def test_a_process_that_ends_is_done_without() -> None:
    dying = f"5 if __import__('os').getpid() == {OWN} else __import__('os')._exit(1)"
    assert spread([PID, "1", dying, "2"]) == [OWN, 1, 5, 2]


def test_where_no_process_can_be_had_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError

    processes.end_all()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert spread([PID, PID, PID]) == [OWN] * 3


def test_a_process_that_nobody_asks_ends_and_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes.end_all()
    monkeypatch.setattr(processes, "IDLE", 0.05)
    first = other_pid()
    until = time.monotonic() + 20
    while Path(f"/proc/{first}/stat").read_text().rsplit(") ", 1)[1][0] != "Z":  # ended, not reaped
        assert time.monotonic() < until
        time.sleep(0.02)
    assert other_pid() != first


def test_they_end_with_a_process_that_is_killed_and_import_nothing_from_its_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "pickle.py").write_text("open('executed', 'w')")
    code = (
        "from deepcnn.data.formats import processes as p\n"
        "p.LOOK = p.WORTH = -1.0; p.cores = lambda: 2; p.start(eval); p.start(eval)\n"
        f"print(list(p.spread(eval, [{PID!r}] * 3, lambda: 1.0)), flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    command = [sys.executable, "-P", "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        own, *others = eval(process.stdout.readline())
        assert own == process.pid
        assert own not in others
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 4  # before they would end by themselves
    while any(Path(f"/proc/{pid}").exists() for pid in others):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not (tmp_path / "executed").exists()


def test_pictures_are_the_same_with_processes(
    tmp_path: Path, cifar10_test: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Arrays(cifar10_test.images[:200], cifar10_test.labels[:200], cifar10_test.classes)
    found = deepcnn.load_dataset(folder_of(few, tmp_path), "train")
    assert np.array_equal(found.images, few.images)
    assert found.labels.tolist() == [index % 2 for index in range(200)]


def test_a_bad_picture_is_named(tmp_path: Path, cifar10_test: Arrays) -> None:
    few = Arrays(cifar10_test.images[:200], cifar10_test.labels[:200], cifar10_test.classes)
    folder = folder_of(few, tmp_path)
    path = folder / "b" / "151.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"b/151\.png: cannot be decoded .* --skip-bad"):
        deepcnn.load_dataset(folder, "train")
    found = deepcnn.load_dataset(folder, "train", skip_bad=True)
    assert len(found.images) == 199
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 200 files give no picture: .*b/151\.png"):
        deepcnn.load_dataset(folder, "train")
