from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from deepcnn import atomic
from deepcnn.errors import CheckpointError
from deepcnn.events import Event, Noted
from deepcnn.learning.state import check_fit
from deepcnn.runs import checkpoint
from deepcnn.runs.owner import Owner

TENSORS = {
    "model.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2),
    "model.seen": torch.tensor(5),
    "average.weight": torch.tensor([-0.0, 1e-45, 3e38]),
}
OWNER = Owner(seed=3, data="crc32c 0000002a", settings={"batch_size": 32}, steps=100)


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    tensors = TENSORS | {"last": TENSORS["model.weight"].to(memory_format=torch.channels_last)}
    path = checkpoint.save(tmp_path, 7, tensors, keep=1)
    step, found, _ = checkpoint.load(path)
    assert step == 7
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        assert torch.equal(found[name].signbit(), tensor.signbit())


def test_the_newest_are_kept_and_unfinished_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / f".step-1.safetensors.0123abcd{atomic.TEMPORARY}").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    for step in (5, 50, 1_000_000_000, 999_999_999):
        checkpoint.save(tmp_path, step, TENSORS, keep=2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"step-999999999.safetensors", "step-1000000000.safetensors", "notes.txt"}
    assert [checkpoint.step_of(p) for p in checkpoint.paths(tmp_path)] == [999_999_999, 10**9]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, TENSORS, keep=1, feed={"at": 15})
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):
            step, tensors, feed = checkpoint.load(path)
            # A flip that changes nothing, such as one in a blank of the JSON.
            assert (step, feed) == (7, {"at": 15})
            check_fit(TENSORS, tensors, "")
            for name, tensor in TENSORS.items():
                assert tensors[name].numpy().tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_cut_file_is_refused(tmp_path: Path, length: int) -> None:
    path = checkpoint.save(tmp_path, 7, TENSORS, keep=1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="not a checkpoint of deepcnn, or damaged"):
        checkpoint.load(path)


# Damage


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def with_metadata(text: str) -> Callable[[Path], None]:
    """Return what writes another text about a checkpoint into it."""

    def write(path: Path) -> None:
        path.write_bytes(safetensors.torch.save(TENSORS, {"deepcnn": text}))

    return write


def with_header(text: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(len(text).to_bytes(8, "little") + text)


HURTS: list[tuple[Callable[[Path], Any], str]] = [
    (flip, "its content does not match its own SHA-256"),
    (cut, "expected [0-9]+ bytes, found"),
    (lambda path: path.write_bytes(b""), "has 0 bytes, and no header"),
    (zero, "damaged"),
    (link_to_nothing, "a link to nothing"),
    (link_to_itself, "symbolic links"),
    (pipe, "found a pipe"),
    (folder, "found a folder"),
    (with_metadata("[" * 100_000), "nested too deeply"),
    (with_metadata('{"step": 1e999, "sha256": "00"}'), "does not match|damaged"),
    (with_metadata('{"step": ' + "9" * 9000 + "}"), "damaged"),
    (with_metadata("[]"), "damaged"),
    (with_metadata('{"step": 7, "feed": ' + '{"a":' * 5000 + "1" + "}" * 5001), "damaged"),
    (with_header(b"[" * 100_000), "nested too deeply"),
    (with_header(b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 1e999]}}'), "damaged"),
    (with_header(b'{"a": 1}'), "damaged"),
    (with_header(b'{"__metadata__": {}}'), "damaged"),
]


@pytest.mark.parametrize(("hurt", "why"), HURTS)
def test_what_is_damaged_is_passed_over_told_and_kept(
    tmp_path: Path, hurt: Callable[[Path], Any], why: str
) -> None:
    older, newer = (checkpoint.save(tmp_path, s, TENSORS, keep=9, owner=OWNER) for s in (5, 7))
    hurt(newer)
    heard: list[Event] = []
    found = checkpoint.newest_whole(tmp_path, lambda: OWNER, heard.append)
    assert found is not None
    assert (found[0], found[1].step) == (older, 5)
    (note,) = heard
    assert isinstance(note, Noted)
    assert str(newer) in note.text
    with pytest.raises(checkpoint.DamagedError, match=why):
        checkpoint.load(newer)
    assert os.path.lexists(newer)
    hurt(older)
    with pytest.raises(CheckpointError, match=r"found only damaged ones: .*Bring one back"):
        checkpoint.newest_whole(tmp_path, lambda: OWNER)


def test_where_nothing_lies_nothing_is_found(tmp_path: Path) -> None:
    assert checkpoint.newest_whole(tmp_path / "nowhere", lambda: OWNER) is None


def test_what_is_damaged_neither_counts_nor_is_removed_when_others_are(tmp_path: Path) -> None:
    one, two, three = (checkpoint.save(tmp_path, s, TENSORS, keep=3) for s in (1, 2, 3))
    flip(two)
    (tmp_path / "step-000000009.safetensors").symlink_to("gone")
    four = checkpoint.save(tmp_path, 4, TENSORS, keep=2)
    assert [path for path in (one, two, three, four) if path.exists()] == [two, three, four]
    flip(four)  # which was whole when it was last looked at
    five = checkpoint.save(tmp_path, 5, TENSORS, keep=2)
    kept = [checkpoint.step_of(path) for path in checkpoint.paths(tmp_path)]
    assert kept == [2, 3, 4, 5, 9]
    assert [five.is_file(), checkpoint.load(three).step] == [True, 3]


@pytest.mark.parametrize("hurt", [flip, folder, pipe, link_to_nothing])
def test_what_is_damaged_is_moved_aside_where_its_place_is_needed(
    tmp_path: Path, hurt: Callable[[Path], None]
) -> None:
    path = checkpoint.save(tmp_path, 7, TENSORS, keep=1)
    content = path.read_bytes()
    for count in (1, 2):
        hurt(path)
        checkpoint.save(tmp_path, 7, TENSORS, keep=1)
        assert path.read_bytes() == content
        assert len([p for p in tmp_path.iterdir() if ".damaged" in p.name]) == count
    checkpoint.save(tmp_path, 7, TENSORS, keep=1)  # which is whole: it is replaced
    assert len(list(tmp_path.iterdir())) == 3


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training removes what the reader has seen, and has saved a newer one."""
    first = checkpoint.save(tmp_path, 1, TENSORS, keep=1)
    listed = checkpoint.paths
    calls: list[Any] = []

    def late(directory: Path) -> list[Path]:
        found = listed(directory)
        if not calls:
            calls.append(found)
            checkpoint.save(directory, 2, TENSORS, keep=1)
            calls.append(first.exists())
        return found

    monkeypatch.setattr(checkpoint, "paths", late)
    heard: list[Event] = []
    found = checkpoint.newest_whole(tmp_path, lambda: OWNER, heard.append)
    assert found is not None
    assert (found[1].step, heard, calls) == (2, [], [[first], False])


def test_an_open_checkpoint_may_be_pruned(tmp_path: Path) -> None:
    """It is opened once: nothing looks for its name again while it is read."""
    stop, endless = threading.Event(), dataclasses.replace(OWNER, steps=10**9)

    def save() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            checkpoint.save(tmp_path, step, TENSORS, keep=1)

    trainer = threading.Thread(target=save)
    trainer.start()
    try:
        steps: list[int] = []
        while len(steps) < 200:
            found = checkpoint.newest_whole(tmp_path, lambda: endless)
            steps += [] if found is None else [found[1].step]
    finally:
        stop.set()
        trainer.join()
    assert steps == sorted(steps)


# Whole, but not of this run


def test_a_checkpoint_of_this_run_is_taken(tmp_path: Path) -> None:
    for step in (0, 100):
        path = checkpoint.save(tmp_path, step, TENSORS, keep=9, owner=OWNER)
        assert checkpoint.load(path, lambda: OWNER).step == step


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 4}, "seed: expected 3, found 4"),
        ({"data": "crc32c 0000002b"}, "data: expected crc32c 0000002a, found crc32c 0000002b"),
        ({"settings": {"batch_size": 64}}, "batch_size: expected 32, found 64"),
        ({"settings": {}}, "batch_size: expected 32, found the default"),
        (
            {"settings": {"batch_size": 32, "model.widths": (8, 8)}},
            r"model.widths: expected the default, found \[8, 8\]",
        ),
    ],
)
def test_a_whole_checkpoint_of_another_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    checkpoint.save(tmp_path, 5, TENSORS, keep=9, owner=OWNER)
    path = checkpoint.save(
        tmp_path, 7, TENSORS, keep=9, owner=dataclasses.replace(OWNER, **changes)
    )
    with pytest.raises(CheckpointError, match=f"{path.name}: a whole .* not of this run: {said}"):
        checkpoint.newest_whole(tmp_path, lambda: OWNER)


def test_what_is_not_known_of_the_data_is_not_compared(tmp_path: Path) -> None:
    unknown = dataclasses.replace(OWNER, data=None)
    for step, mine in enumerate((OWNER, unknown)):
        path = checkpoint.save(tmp_path, step, TENSORS, keep=9, owner=mine)
        assert checkpoint.load(path, lambda: unknown).step == step
        assert checkpoint.load(path, lambda: OWNER).step == step


def test_a_step_unlike_its_name_or_beyond_the_last_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 101, TENSORS, keep=9, owner=OWNER)
    with pytest.raises(CheckpointError, match=r"step: expected 0 to 100 \(its steps\), found 101"):
        checkpoint.newest_whole(tmp_path, lambda: OWNER)
    path.rename(tmp_path / "step-000000100.safetensors")
    with pytest.raises(CheckpointError, match="step: expected 100, as its name says, found 101"):
        checkpoint.newest_whole(tmp_path, lambda: OWNER)


def resealed(path: Path, **changes: Any) -> None:
    """Write a checkpoint that says other things of itself, with a sum that is right."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["deepcnn"])
    del said["sha256"]
    said |= changes
    digest = checkpoint.digest(said, tensors)
    with_metadata(json.dumps({**said, "sha256": digest}))(path)


def test_a_newer_format_and_a_negative_step_are_refused_and_not_passed_over(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, TENSORS, keep=9, owner=OWNER)
    resealed(path)
    assert checkpoint.load(path, lambda: OWNER).step == 7
    for changes, said in (
        ({"format": 3, "new": [1]}, "format: expected 2 or less, found 3. A newer deepcnn"),
        ({"format": "x"}, "format: expected 2 or less, found x"),
        ({"format": 2, "step": -7}, "step: expected 7, as its name says, found -7"),
        ({"step": 7, "run": {"seed": 3}}, "settings: expected a group, found None"),
    ):
        resealed(path, **changes)
        with pytest.raises(CheckpointError, match=said) as raised:
            checkpoint.newest_whole(tmp_path, lambda: OWNER)
        assert not isinstance(raised.value, checkpoint.DamagedError)


def test_a_state_of_a_feed_that_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Give the feed a smaller state_dict"):
        checkpoint.save(tmp_path, 7, TENSORS, keep=1, feed={"seen": "x" * (1 << 23)})
    assert list(tmp_path.iterdir()) == []


def test_each_checkpoint_is_read_once_however_many_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To tell whether it is whole, at the saving after its own."""
    read, count = checkpoint.load, 150
    seen: list[Path] = []

    def load(path: Path) -> checkpoint.Checkpoint:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(checkpoint, "load", load)
    monkeypatch.setattr(os, "fsync", os.fstat)
    for step in range(count):
        checkpoint.save(tmp_path, step, TENSORS, keep=count)
    assert seen == checkpoint.paths(tmp_path)[:-1]
