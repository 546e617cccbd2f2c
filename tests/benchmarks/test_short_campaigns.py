"""The campaigns in short: some kills, power cuts and pairs of trainings; and what they stand on.

The long forms are `benchmarks/run.py campaigns`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.benchmarks.conftest import BENCHMARKS, Import

# In a process of its own: one that has trained cannot be forked.
SHORT = """
import json
from faults import kills, power, two
power.KILLED_BEFORE = 1
found = [*kills.cases(7, 1, ["judged, summaries"]), *power.cases(7, 1, ["overwrite"])]
found += two.cases(3, 1, ["start and start", "resume and overwrite"])
print(json.dumps(found))
"""


def cases_of(program: str, scratch: Path) -> list[dict[str, Any]]:
    """Return the cases that a program of campaigns prints; none of them failed."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=BENCHMARKS,
        env=os.environ | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert [case for case in found if not case["ok"]] == []
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_kills_power_cuts_and_pairs_lose_nothing(tmp_path: Path) -> None:
    found = cases_of(SHORT, tmp_path)
    assert sum(len(case.get("killed", [])) for case in found) >= 7
    assert len(found) == 7 + 7 + 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "file").write_bytes(b"safe")
    return folder


def after(benchmark: Import, folder: Path, *calls: tuple[str, str, str]) -> list[dict[str, object]]:
    """Return what may be found after calls: (kind, path, new path or content)."""
    disk = benchmark("faults.disk").Disk(folder)
    make = benchmark("faults.calls").Call
    for kind, path, more in calls:
        to = str(folder / more) if kind == "rename" else ""
        content = more.encode() if kind == "write" else b""
        disk.do(make(kind, str(folder / path) if path else str(folder), to=to, content=content))
    found = {json.dumps(tree, default=bytes.decode): tree for tree in all_of(disk)}
    return [{name: x for name, x in tree.items() if name[:3] != "old"} for tree in found.values()]


def all_of(disk: object) -> list[dict[str, bytes | None]]:
    return [*disk.after_a_cut(10**6, random.Random(0))]  # type: ignore[attr-defined]


def test_only_fsync_brings_a_name_and_a_content_to_the_disk(
    benchmark: Import, folder: Path
) -> None:
    make, write = ("create", "new", ""), ("write", "new", "abcd")
    assert after(benchmark, folder, make) == [{}, {"new": b""}]
    torn = [{}, {"new": b""}, {"new": b"abcd"}, {"new": b"ab"}, {"new": bytes(4)}]
    found = after(benchmark, folder, make, write)
    assert len(found) == len(torn) + 1
    assert all(tree in found for tree in torn)
    assert {"new": b"\0\0cd"} in found
    assert after(benchmark, folder, make, write, ("fsync", "new", "")) == [{}, {"new": b"abcd"}]
    assert after(benchmark, folder, make, write, ("fsync", "new", ""), ("fsync", "", "")) == [
        {"new": b"abcd"}
    ]


def test_names_are_lost_in_any_order_and_a_folder_with_all_that_is_in_it(
    benchmark: Import, folder: Path
) -> None:
    found = after(benchmark, folder, ("mkdir", "a", ""), ("mkdir", "a/b", ""), ("fsync", "a", ""))
    assert found == [{}, {"a": None, "a/b": None}]
    calls = [("create", "t", ""), ("rename", "t", "new"), ("create", "x", "")]
    found = after(benchmark, folder, *calls)
    names = [set(), {"t"}, {"new"}, {"x"}, {"t", "x"}, {"new", "x"}]
    assert sorted(map(sorted, found)) == sorted(map(sorted, names))


@pytest.fixture
def campaigns(benchmark: Import) -> ModuleType:
    return benchmark("faults.campaigns")


def test_every_campaign_of_the_table_is_a_program(campaigns: ModuleType, benchmark: Import) -> None:
    programs = benchmark("run").PROGRAMS
    for name, arguments in campaigns.CAMPAIGNS.items():
        assert name in programs
        assert arguments.keys() == {"reduced", "full"}


def test_a_campaign_that_fails_is_in_the_table_and_in_the_status(
    campaigns: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        ok = "faults_of_two" not in command
        Path(command[-1]).write_text(json.dumps({"ok": ok}) + "\n" + '{"ok": true}\n')
        return subprocess.CompletedProcess(command, 0 if ok else 1)

    monkeypatch.setattr(subprocess, "run", run)
    names = ["--only", "faults_of_kills", "faults_of_two"]
    assert campaigns.main(["--size", "reduced", *names]) == 1
    *_, title, kills, two = capsys.readouterr().out.splitlines()
    assert title.split() == ["campaign", "cases", "failed", "seconds"]
    assert kills.split()[:3] == ["faults_of_kills", "2", "0"]
    assert two.split()[:3] == ["faults_of_two", "2", "1"]
    assert two.endswith("FAILED")
    assert campaigns.main(["--only", "faults_of_kills"]) == 0


HOSTILE = """
import json
from faults import hostile
only = ["npz: arrays that are pickles", "npz: a header that is a call",
        "npz: a header that is a huge number", "tar: a name of 1 GB", "config.json: 2 GB",
        "inputs.json: a pipe", "inputs.json: an endless device", "log: nested",
        "config.json: deep nesting",
        "checkpoint: torch's own form", "pictures whose names command a terminal",
        "table: a path that leaves", "png: rows that are missing"]
print(json.dumps([*hostile.cases(len(only), 1, only)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads how much memory a child took")
def test_files_made_to_hurt_take_no_time_and_no_memory_and_change_nothing(tmp_path: Path) -> None:
    found = cases_of(HOSTILE, tmp_path)
    assert len({case["what"] for case in found}) == 13


def test_a_file_that_does_harm_is_told(benchmark: Import) -> None:
    hostile = benchmark("faults.hostile")
    case = benchmark("faults.crafted").Crafted("x", "data", lambda _: None)
    fine = {"kind": "DataError", "said": "x", "seconds": 0.1, "bytes": 0}
    assert hostile.judged(case, fine, {}) == ""
    for changed, problem in (
        ({"kind": "foreign KeyError"}, "foreign KeyError: x"),
        ({"kind": "read"}, "it was taken"),
        ({"seconds": 1.2}, "it took 1.2 s"),
        ({"bytes": 4e8}, "it took 400 MB"),
        ({"said": "x" * 5000}, "what it says is not to be shown: "),
    ):
        assert hostile.judged(case, fine | changed, {}).startswith(problem)
    assert hostile.judged(case, {"signal": 14}, {}).startswith("the process ended")


def test_changed_files_of_every_kind_are_read_or_refused(
    benchmark: Import, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy", reason="one of the kinds is MATLAB's")
    fuzz = benchmark("faults.fuzz")
    chance = random.Random(5)
    all_ = fuzz.parsers(tmp_path)
    assert len(all_) >= 20
    for parser in all_:
        place = tmp_path / f"try {parser.name}"
        if parser.name != "weights":  # which is none of ours as it is
            assert fuzz.tried(parser, parser.files[parser.victim], place) == ""
        for _ in range(5):
            content = fuzz.changed(parser.files[parser.victim], b"other", chance)
            assert fuzz.tried(parser, content, place) == ""
    capfd.readouterr()  # libtiff's own complaints

    def foreign(_: Path) -> None:
        raise KeyError("x")

    assert fuzz.tried(fuzz.Parser("x", {"a": b""}, "a", foreign), b"", tmp_path) == "KeyError: 'x'"
