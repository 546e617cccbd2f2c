from __future__ import annotations

import fcntl
import os
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deepcnn import atomic


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


WRITE = """
import sys, time
from pathlib import Path
from deepcnn import atomic
with getattr(atomic, sys.argv[1])(Path(sys.argv[2])) as made:
    made.write(b"half") if sys.argv[1] == "writing" else (made / "half").touch()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["writing", "appearing"])
def test_what_a_killed_writer_left_is_removed_by_the_next_of_its_name(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "answers.csv"
    not_ours = [".other.csv.0123abcd.tmp", ".answers.csv.tmp", ".answers.csv.01.tmp"]
    for name in not_ours:
        (tmp_path / name).touch()
    link = tmp_path / ".answers.csv.0123abcd.tmp"
    link.symlink_to(tmp_path / not_ours[0])
    os.mkfifo(tmp_path / ".answers.csv.89abcdef.tmp")
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-c", WRITE, how, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        (left,) = set(tmp_path.iterdir()) - before
        atomic.write(path, b"mine")
        still_there = left.exists()
        writer.kill()
    assert still_there, "what is being written was taken for left over"
    atomic.write(path, b"mine, too")
    assert set(tmp_path.iterdir()) == {*before, path}


def test_a_writer_whose_file_was_taken_for_left_over_takes_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its making and its lock another process may find it."""
    flock = fcntl.flock
    taken: list[Path] = []

    def late(handle: int, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        flock(handle, how)

    names = iter(["00000000", "11111111"])
    monkeypatch.setattr(fcntl, "flock", late)
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(names))
    atomic.write(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert len(taken) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert list(names) == [], "both were taken"


def test_directories_that_are_made_are_flushed_in_their_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(atomic, "flush_directory", flushed.append)
    atomic.make_directory(tmp_path / "runs" / "a")
    assert sorted(flushed) == [tmp_path, tmp_path / "runs"]
    atomic.make_directory(tmp_path / "runs" / "a")
    assert len(flushed) == 2, "nothing was made"


def test_the_name_of_a_file_reaches_the_disk_after_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is flushed last is the directory, once it has the name."""
    path = tmp_path / "x"
    original, flushed = os.fsync, []

    def fsync(handle: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        flushed.append((kind, path.read_bytes() if path.exists() else None))
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write(path, b"new")
    assert flushed == [("file", None), ("directory", b"new")]
