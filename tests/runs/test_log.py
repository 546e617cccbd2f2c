"""Logs: what is written is read, plain or gzipped, and damage is named."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from deepcnn.errors import RunError
from deepcnn.events import Evaluated, Saved, Stepped
from deepcnn.runs.log import JsonLog, events, read_log, to_json

LINES = b'{"event": "Saved", "step": 1}\n{"event": "Evaluated", "step": 1}\n'
LINES += '{"event": "Saved", "step": 2, "path": "a\u2028b"}\n'.encode()


def test_events_come_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES)
    log = read_log(path)
    assert [event["event"] for event in log] == ["Saved", "Evaluated", "Saved"]
    assert events(log, "Saved") == [log[0], log[2]]
    assert log[2]["path"] == "a\u2028b"
    assert events(log, "Finished") == []


def test_a_line_without_an_event_is_kept_and_is_of_no_kind(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"name": "base"}\n')
    assert read_log(path) == [{"name": "base"}]
    assert events(read_log(path), "Saved") == []


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_a_gzipped_log_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    plain, packed = tmp_path / f"plain-{name}", tmp_path / f"packed-{name}"
    plain.write_bytes(LINES)
    packed.write_bytes(gzip.compress(LINES))
    assert read_log(packed) == read_log(plain)
    assert len(read_log(packed)) == 3


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    scored = Evaluated(step=5, split="test", averaged=True, correct=3, total=4, loss=float("nan"))
    path.write_text(to_json(Saved(5, "here")) + "\n" + to_json(scored) + "\n")
    (found,) = events(read_log(path), "Evaluated")
    assert found.pop("time")
    assert found == {
        "event": "Evaluated",
        "step": 5,
        "split": "test",
        "averaged": True,
        "correct": 3,
        "total": 4,
        "loss": None,
    }


@pytest.mark.parametrize("cut", range(1, len(LINES.splitlines(keepends=True)[2])))
def test_a_line_that_a_killed_writer_left_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES[:-cut])
    assert [event["event"] for event in read_log(path)] == ["Saved", "Evaluated"]


def test_an_empty_log_has_no_events(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.touch()
    assert read_log(path) == []


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"3", b"\xff{}", b"{} {}"])
def test_another_line_that_is_no_object_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(LINES + line + b"\n" + LINES)
    with pytest.raises(RunError, match=r"log\.jsonl, line 4: expected a JSON object, found"):
        read_log(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(RunError, match=r"log\.jsonl: cannot be read"):
        read_log(path)
    packed = gzip.compress(LINES)
    for damaged in (
        packed[:-9],
        packed[:12] + b"\xff\xff" + packed[14:],
        packed[:-8] + b"12345678",
    ):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"log\.jsonl: cannot be read"):
            read_log(path)


def test_it_needs_neither_torch_nor_numpy() -> None:
    script = "import sys, deepcnn.runs.log; "
    script += "assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_lines_that_a_power_cut_left_without_their_content_are_left_out(tmp_path: Path) -> None:
    """Of what was not flushed some blocks may have come to the disk, and others are zeros."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"event": "A"}\n' + bytes(9) + b'"B"}\n{"event": "C"}\n' + bytes(5))
    with closing(JsonLog(path, pytest.fail)) as log:
        log(Stepped(1, {"a": 1.0}, {}, 0.1, 1.0, 1.0))
    assert [event["event"] for event in read_log(path)] == ["A", "C", "Stepped"]


def test_the_log_survives_a_line_cut_off_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "A"}\n{"event": "B", "st')
    with closing(JsonLog(path, pytest.fail)) as log:
        log(Evaluated(3, "test", True, 1, 2, float("nan")))
        log(Stepped(1, {"a": float("inf")}, {}, 0.1, 1.0, 1.0))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["A", "Evaluated", "Stepped"]
    assert lines[1]["loss"] is None
    assert lines[2]["losses"] == {"a": None}
