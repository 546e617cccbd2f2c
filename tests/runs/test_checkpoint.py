from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from deepcnn import atomic
from deepcnn.errors import CheckpointError
from deepcnn.learning.state import check_fit
from deepcnn.runs import checkpoint

TENSORS = {
    "model.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2),
    "model.seen": torch.tensor(5),
    "average.weight": torch.full((3,), float("nan")),
}


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    tensors = TENSORS | {"last": TENSORS["model.weight"].to(memory_format=torch.channels_last)}
    path = checkpoint.save(tmp_path, 7, tensors, keep=1)
    step, found, _ = checkpoint.load(path)
    assert step == 7
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(1), tensor.nan_to_num(1))


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
