"""Several programs at once; they are tiny ones of Python here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deepcnn.sweep.jobs import Ended, Job, held_by_all, run_all


def job(name: str, code: str, *arguments: str) -> Job:
    return Job(name, [sys.executable, "-S", "-c", code, *arguments])


def run(jobs: list[Job], at_once: int) -> tuple[list[tuple[str, dict[str, Any]]], list[Ended]]:
    heard: list[tuple[str, dict[str, Any]]] = []
    ended: list[Ended] = []
    run_all(jobs, at_once, lambda job, event: heard.append((job.name, event)), ended.append)
    return heard, ended


def test_events_are_heard_and_what_else_is_said_is_kept() -> None:
    code = (
        "import sys; print('{\"a\": 1}'); print('[2]'); print('no', file=sys.stderr); sys.exit(3)"
    )
    heard, (ended,) = run([job("x", code)], 1)
    assert heard == [("x", {"a": 1})]
    assert (ended.job.name, ended.status) == ("x", 3)
    assert sorted(ended.said) == ["[2]", "no"]


def test_so_many_run_at_once_and_a_crash_of_one_stops_no_other(tmp_path: Path) -> None:
    code = """
import os, pathlib, sys, time
mine = pathlib.Path(sys.argv[1]) / str(os.getpid())
mine.touch()
time.sleep(0.15)
print('{"n": %d}' % len(list(mine.parent.iterdir())))
mine.unlink()
"""
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    jobs = [job("crash", crash), *(job(str(i), code, str(tmp_path)) for i in range(4))]
    heard, ended = run(jobs, 2)
    assert {each.job.name: each.status for each in ended} == {
        **{str(i): 0 for i in range(4)},
        "crash": -signal.SIGKILL,
    }
    assert max(event["n"] for _, event in heard) == 2


def test_an_exception_stops_all_that_run_and_starts_no_other(tmp_path: Path) -> None:
    code = """
import pathlib, signal, sys, time
def save(number, frame):
    pathlib.Path(sys.argv[1]).write_text(str(number))
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print('{"ready": true}', flush=True)
time.sleep(30)
"""
    jobs = [job(name, code, str(tmp_path / name)) for name in ("a", "b", "c")]
    ready = []

    def heard(job: Job, event: dict[str, Any]) -> None:
        ready.append(job.name)
        if len(ready) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all(jobs, 2, heard, lambda _: None)
    saved = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert saved == dict.fromkeys(("a", "b"), str(int(signal.SIGTERM)))


def test_a_file_is_held_until_the_last_that_inherited_it_ends(tmp_path: Path) -> None:
    path, waited = tmp_path / "lock", []
    starter = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from deepcnn.sweep.jobs import Job, held_by_all, run_all
with held_by_all(Path({str(path)!r}), lambda: None) as held:
    child = "import time; print('{{}}', flush=True); time.sleep(0.6)"
    told = lambda job, event: print("begun", flush=True)
    run_all([Job("x", [sys.executable, "-S", "-c", child])], 1, told, print, inherit=held)
"""
    process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with held_by_all(path, lambda: waited.append(True)):
        assert waited == [True]
        assert time.monotonic() - began > 0.2
    process.stdout.close()
