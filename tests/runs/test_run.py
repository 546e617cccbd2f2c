"""A run's directory: who may begin one in it, who waits, and which job finds it again."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from deepcnn import atomic
from deepcnn.config import to_dict
from deepcnn.errors import RunError
from deepcnn.runs import run as runs
from deepcnn.runs.run import CONFIG, ENVIRONMENT, INPUTS, JOB, LOCK, REPLACED, Run
from tests.helpers.tiny import TINY, tiny

ABOUT = {"inputs": {"crop": 1.0}, "classes": ["cat", "dog"]}  # what a run says of its data


def a_run(path: Path) -> Run:
    """Make what is a run, by its files."""
    path.mkdir(parents=True, exist_ok=True)
    run = Run(path)
    (path / LOCK).touch()
    run.write(INPUTS, ABOUT)
    run.write(CONFIG, to_dict(TINY))
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name != LOCK
    }


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({CONFIG: "{}"}, r"inputs\.json: expected a file, found none"),
        ({CONFIG: json.dumps(to_dict(TINY))}, r"inputs\.json: expected a file, found none"),
        ({CONFIG: '{"name": "vite"}', INPUTS: '{"keys": 3}'}, "has no inputs or no classes"),
        ({CONFIG: "{}", INPUTS: json.dumps(ABOUT)}, r"config\.json: config: missing setting"),
        ({CONFIG: "[]", INPUTS: json.dumps(ABOUT)}, "expected a JSON object"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_merely_holds_a_config_is_never_replaced(
    tmp_path: Path, files: dict[str, str], problem: str, overwrite: bool
) -> None:
    for name, text in {**files, "thesis.tex": "ten years"}.items():
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    with (
        pytest.raises(RunError, match=f"is no run of deepcnn .*{problem}.*choose another"),
        Run.begin(tmp_path, "tiny", overwrite=overwrite),
    ):
        pass
    assert contents(tmp_path) == before


def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / "old").touch()
    with (
        pytest.raises(RunError, match=r"holds a run already.*--resume.*--overwrite"),
        Run.begin(tmp_path, "tiny"),
    ):
        pass
    assert (run.checkpoints / "old").exists()
    with Run.begin(tmp_path, "tiny", overwrite=True) as new:
        assert [entry.name for entry in new.path.iterdir()] == [LOCK]


def test_a_run_in_training_is_not_replaced(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    before = contents(tmp_path)
    with (
        run.lock(),
        pytest.raises(RunError, match="another process is training this run"),
        Run.begin(tmp_path, "tiny", overwrite=True),
    ):
        pass
    assert contents(tmp_path) == before


def a_whole_run(path: Path) -> Run:
    """Make a run that has something in each of its folders."""
    run = a_run(path)
    for name in ("checkpoints/best/step-1", "checkpoints/step-1", "summaries/train/x", "log.jsonl"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("old")
    return run


class InterruptedHereError(Exception):
    """Ends what would be killed."""


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Let the calls that rename or remove fail from a certain one on, as after a kill."""
    left = [at]

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise InterruptedHereError
            return function(*arguments, **named)

        return call

    for name in ("replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def test_a_replacement_that_is_killed_anywhere_leaves_a_whole_run_or_none(tmp_path: Path) -> None:
    states = set()
    for at in range(100):
        path = tmp_path / str(at)
        before = tree(a_whole_run(path).path)
        with pytest.MonkeyPatch.context() as patched:
            interrupt(patched, at)
            try:
                with Run.begin(path, "tiny", overwrite=True):
                    break
            except InterruptedHereError:
                pass
        if (path / CONFIG).exists():
            assert tree(path) == before
            states.add("the old run")
        elif len(tree(path)) > 2:
            for begin in (lambda path=path: Run.open(path), lambda path=path: begun(path)):
                with pytest.raises(RunError, match=r"was being replaced.*with --overwrite"):
                    begin()
            states.add("half deleted")
        with Run.begin(path, "tiny", overwrite=True):
            assert [entry.name for entry in path.iterdir()] == [LOCK]
    assert at > 8
    assert states == {"the old run", "half deleted"}


def begun(path: Path) -> None:
    with Run.begin(path, "tiny"):
        pass


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != LOCK}


def test_a_folder_is_not_deleted_for_a_file_that_is_called_as_a_replaced_config(
    tmp_path: Path,
) -> None:
    (tmp_path / REPLACED).write_text("{}")
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(RunError, match="neither empty nor a run"),
        Run.begin(tmp_path, "tiny", overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("kind", ["folder", "nowhere", "itself", "file", "device"])
def test_a_lock_that_is_no_plain_file_is_an_error_and_never_followed(
    tmp_path: Path, kind: str
) -> None:
    run = a_run(tmp_path / "run")
    lock, elsewhere = run.path / LOCK, tmp_path / "elsewhere"
    lock.unlink()
    elsewhere.write_text("precious")
    targets = {"nowhere": tmp_path / "nowhere", "itself": lock, "device": Path("/dev/null")}
    lock.mkdir() if kind == "folder" else lock.symlink_to(targets.get(kind, elsewhere))
    for work in (run.in_training, run.lock().__enter__, lambda: replaced(run.path)):
        with pytest.raises(RunError, match="lock: expected a plain file"):
            work()
    assert elsewhere.read_text() == "precious"
    assert run.config() == TINY
    assert not targets["nowhere"].exists()


def replaced(path: Path) -> None:
    with Run.begin(path, "tiny", overwrite=True):
        pass


def test_the_names_of_a_new_run_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(atomic, "flush_directory", flushed.append)
    with Run.begin(tmp_path / "runs" / "a", "tiny"):
        assert {tmp_path, tmp_path / "runs", tmp_path / "runs" / "a"} <= set(flushed)
    flushed.clear()
    with Run.begin(tmp_path / "runs" / "a", "tiny"):  # a start that was killed had made it
        assert tmp_path / "runs" in flushed


def test_what_remains_of_a_killed_start_is_taken_over(tmp_path: Path) -> None:
    for name in (LOCK, JOB, ENVIRONMENT, INPUTS, f".{CONFIG}.0123abcd{atomic.TEMPORARY}"):
        (tmp_path / name).write_text("{}")
    with Run.begin(tmp_path, "tiny") as run:
        assert [entry.name for entry in run.path.iterdir()] == [LOCK]
        assert run.in_training()
    assert not run.in_training()
    (tmp_path / "letter.txt").touch()
    with pytest.raises(RunError, match="neither empty nor a run"), Run.begin(tmp_path, "tiny"):
        pass


def test_a_run_that_was_made_while_a_start_waited_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find an empty directory; the first makes its run and ends before the second's turn."""
    waits = threading.Event()

    class Announced(FileLock):
        def acquire(self, *arguments: Any, **settings: Any) -> Any:
            waits.set()
            return super().acquire(*arguments, **settings)

    refused: list[str] = []

    def second() -> None:
        try:
            with Run.begin(tmp_path, "tiny"):
                pass
        except RunError as error:
            refused.append(str(error))

    with Run.begin(tmp_path, "tiny") as first:
        monkeypatch.setattr(runs, "FileLock", Announced)
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(20)
        a_run(first.path)
        (first.path / "log.jsonl").write_text("precious")
    thread.join()
    assert len(refused) == 1
    assert "holds a run already" in refused[0]
    assert first.log.read_text() == "precious"
    assert first.config() == TINY


def test_runs_without_a_directory_get_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Run.begin(None, "tiny") as first, Run.begin(None, "tiny") as second:
        assert first.path != second.path
        assert {first.path.parent, second.path.parent} == {Path("runs")}
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="found a file"), Run.begin(tmp_path / "file", "tiny"):
        pass


def begun_by(path: Path, job: str | None, command: dict[str, Any]) -> Run:
    run = a_run(path)
    run.write(JOB, {"job": job, "command": command})
    return run


def test_a_job_finds_the_run_that_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command, other = to_dict(TINY), to_dict(tiny(seed=7))
    begun_by(Path("runs/a"), "another 1", command)
    begun_by(Path("runs/b"), "mine 1", command)
    begun_by(Path("runs/c"), None, command)
    begun_by(Path("elsewhere"), "mine 2", command)

    def found(job: str | None, path: Path | None, command: dict[str, Any]) -> Path | None:
        run = Run.of_job(job, path, command)
        return None if run is None else run.path

    assert found("mine 1", None, command) == Path("runs/b")
    assert found("mine 1", Path("runs/b"), command) == Path("runs/b")
    assert found("mine 2", Path("elsewhere"), command) == Path("elsewhere")
    assert found("mine 2", None, command) is None
    assert found("mine 1", Path("elsewhere"), command) is None
    assert found(None, None, command) is None, "a program that nobody restarts"
    assert found("mine 1", None, other) is None, "another command's, whose job has the same name"
    assert found("mine 1", Path("runs/b"), other) is None
    (tmp_path / "runs" / "b" / CONFIG).unlink()  # killed before it was a run
    assert found("mine 1", None, command) is None


# What is stored tells of its own damage


def test_what_is_stored_is_read_and_says_its_format(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert run.config() == TINY
    assert run.read(INPUTS) == ABOUT
    text = json.loads((tmp_path / INPUTS).read_text())
    assert [*text] == ["format", "inputs", "classes", "sha256"]
    assert text["format"] == 2


def test_every_single_flipped_bit_of_a_file_is_found(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    rng = random.Random(0)
    for name in (CONFIG, INPUTS):
        content = (tmp_path / name).read_bytes()
        every = [(place, bit) for place in range(len(content)) for bit in range(8)]
        for place, bit in rng.sample(every, min(1500, len(every))):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(RunError, match=name):
                run.read(name)


def test_a_change_by_hand_is_refused_and_how_to_keep_it_is_said(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**values, "keep": 7}, indent=2) + "\n")
    with pytest.raises(RunError, match=r"changed by hand.*remove the entries format and sha256"):
        run.config()
    (tmp_path / CONFIG).write_text(json.dumps(values))  # the same, laid out otherwise
    with pytest.raises(RunError, match="changed by hand"):
        run.config()
    del values["format"], values["sha256"]
    (tmp_path / CONFIG).write_text(json.dumps({**values, "keep": 7}))  # as older versions wrote
    assert run.config() == tiny(keep=7)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**values, "format": 3, "new": 1}))
    with pytest.raises(RunError, match=r"config\.json: format: expected 2 or less, found 3"):
        run.config()


def test_what_is_no_file_leaves_nothing_open(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    (tmp_path / CONFIG).unlink()
    (tmp_path / CONFIG).mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(RunError, match="found a folder"):
            run.config()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "put",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("gone"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text('{"a":' * 900 + "1" + "}" * 900),
        lambda path: path.write_text('{"format": 2, "a":' + '{"a":' * 900 + "1" + "}" * 901),
        lambda path: path.write_text("9" * 9000),
        lambda path: path.write_text(json.dumps(to_dict(TINY) | {"model": [[[]]]})),
        lambda path: path.write_bytes(b"\xff\xfe{}"),
        lambda path: path.write_text(
            json.dumps(to_dict(TINY)).replace('"keep": 5', '"keep": 1e999')
        ),
        lambda path: path.write_bytes(b" " * (runs.LARGEST + 1)),
    ],
)
def test_what_is_no_file_of_settings_is_an_error_that_names_it(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    run = a_run(tmp_path)
    (tmp_path / CONFIG).unlink()
    put(tmp_path / CONFIG)
    with pytest.raises(RunError, match=r"config\.json"):
        run.config()


def test_settings_that_are_nested_to_any_depth_are_an_error_that_names_the_file(
    tmp_path: Path,
) -> None:
    """Which depths can be read, and shown in an error, depends on the version of Python."""
    run = a_run(tmp_path)
    text = json.dumps(to_dict(TINY) | {"keep": "deep"})
    for depth in range(900, 1000, 7):
        (tmp_path / CONFIG).write_text(text.replace('"deep"', "[" * depth + "]" * depth))
        with pytest.raises(RunError, match=r"config\.json"):
            run.config()
