"""Files that are appended to while a disk is full, and afterwards."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deepcnn.events import Evaluated, Stepped
from deepcnn.runs import appended
from deepcnn.runs.appended import Appended
from deepcnn.runs.tensorboard import TensorBoard
from tests.helpers.tiny import read_back


class Disk:
    """Takes so many bytes of each write, then none."""

    def __init__(self) -> None:
        self.room: int | None = None
        self._write = os.write

    def write(self, handle: int, content: Any) -> int:
        if self.room is not None and handle > 2:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            content = content[: self.room]
            self.room -= len(content)
        return self._write(handle, content)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    yield disk
    disk.room = None


def test_what_a_full_disk_refuses_is_written_later_and_nothing_twice(
    tmp_path: Path, disk: Disk
) -> None:
    notes: list[str] = []
    path = tmp_path / "log"
    with closing(Appended(path, notes.append)) as file:
        file.write(b"first\n")
        disk.room = 3  # a part of the second
        for record in (b"second\n", b"third\n", b"fourth\n"):
            file.write(record)
        assert path.read_bytes() == b"first\nsec"
        assert len(notes) == 1
        assert notes[0].startswith(f"{path}: cannot be written (No space left on device). Free ")
        disk.room = None
        file.write(b"fifth\n")
        assert path.read_bytes() == b"first\nsecond\nthird\nfourth\nfifth\n"
    assert notes[1:] == [f"{path}: is written again."]


def test_what_a_call_that_failed_wrote_all_the_same_is_no_part_of_the_file(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "log"
    with closing(Appended(path, lambda _: None)) as file:
        file.write(b"first\n")
        disk.room = 0
        file.write(b"second\n")
        with path.open("ab") as other:
            other.write(b"sec")
        disk.room = None
        file.write(b"third\n")
    assert path.read_bytes() == b"first\nsecond\nthird\n"


def test_what_waits_is_bounded_and_what_was_begun_is_ended(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appended, "MOST_WAITING", 20)
    notes: list[str] = []
    path = tmp_path / "log"
    with closing(Appended(path, notes.append)) as file:
        disk.room = 2
        for number in range(9):
            file.write(b"number %d\n" % number)  # 9 bytes
        disk.room = None
        file.write(b"last\n")
    assert path.read_bytes() == b"number 0\nnumber 8\nlast\n"
    assert notes[1:] == [f"{path}: is written again. 7 records are lost."]


def test_what_is_lost_in_the_end_is_told(tmp_path: Path, disk: Disk) -> None:
    notes: list[str] = []
    path = tmp_path / "log"
    with closing(Appended(path, notes.append)) as file:
        disk.room = 0
        file.write(b"one\n")
        file.write(b"two\n")
    assert notes[1:] == [f"{path}: 2 records are lost."]


def test_a_file_that_cannot_be_opened_is_opened_later(tmp_path: Path) -> None:
    notes: list[str] = []
    path = tmp_path / "folder" / "log"
    with closing(Appended(path, notes.append)) as file:
        file.write(b"one\n")
        path.parent.mkdir()
        file.write(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    assert len(notes) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_what_a_full_disk_delayed(tmp_path: Path, disk: Disk) -> None:
    notes: list[str] = []
    with closing(TensorBoard(tmp_path, notes.append)) as board:
        for step in range(9):
            if step == 3:
                disk.room = 17  # in the middle of a record
            if step == 6:
                disk.room = None
            board(Stepped(step, {"total_loss": float(step)}, {}, 0.1, 1.0, 1.0))
        board(Evaluated(9, "test", averaged=True, correct=3, total=4, loss=0.5))
    found = read_back(tmp_path)
    points = [(event.step, event.value) for event in found.Scalars("loss/total_loss")]
    assert points == [(step, float(step)) for step in range(9)]
    assert [event.value for event in found.Scalars("accuracy/test")] == [0.75]
    assert len(notes) == 2
