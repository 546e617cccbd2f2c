"""Small files that unpack to much: one error from their heads, before memory is taken."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepcnn.data.formats import decoding
from deepcnn.data.formats.decoding import BadPictureError, Format, decode
from deepcnn.data.formats.idx import IdxShard
from deepcnn.data.formats.mat import MatShard
from deepcnn.data.formats.npz import NpzShard
from deepcnn.data.shards import check_unpacked
from deepcnn.errors import DataError
from deepcnn.machine import memory

MANY = 15_000_000  # one-pixel images, which take 9 bytes each
FOUND = r"expected at most 100 times the file's .* bytes, found 15,000,000 images of 1×1×1"


def npz(folder: Path) -> NpzShard:
    path = folder / "train.npz"
    np.savez_compressed(
        path, images=np.zeros((MANY, 1, 1), np.uint8), labels=np.zeros(MANY, np.uint8)
    )
    return NpzShard(path)


def idx(folder: Path) -> IdxShard:
    heads = {"images": [0x803, MANY, 1, 1], "labels": [0x801, MANY]}
    for name, head in heads.items():
        content = np.array(head, ">u4").tobytes() + bytes(MANY)
        (folder / name).write_bytes(gzip.compress(content, 1))
    return IdxShard(folder / "images", folder / "labels")


def mat(folder: Path) -> MatShard:
    io = pytest.importorskip("scipy.io", reason="reading MATLAB files needs scipy")
    path = folder / "train_32x32.mat"
    values = {"X": np.zeros((1, 1, 1, MANY), np.uint8), "y": np.ones((MANY, 1), np.uint8)}
    io.savemat(path, values, do_compression=True)
    return MatShard(path)


@pytest.mark.parametrize("make", [npz, idx, mat])
def test_a_file_is_refused_that_unpacks_to_far_more_than_it_is(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=FOUND):
        make(tmp_path)


def test_what_an_honest_file_may_unpack_to() -> None:
    check_unpacked("small", 10**6, (10, 10, 1), 1)
    check_unpacked("honest", 10**6, (32, 32, 3), 10**8)
    with pytest.raises(DataError, match=r"^hostile: expected at most 100 times the file's 9,999"):
        check_unpacked("hostile", 10**6, (32, 32, 3), 9_999_999)


def test_labels_stay_as_small_as_in_the_file(tmp_path: Path) -> None:
    count = 100_000
    path = tmp_path / "train.npz"
    np.savez(path, images=np.zeros((count, 1, 1), np.uint8), labels=np.ones(count, np.uint8))
    tracemalloc.start()
    try:
        shard = NpzShard(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * count
    finally:
        tracemalloc.stop()
    ((_, labels),) = shard.blocks(0, count, count)
    assert labels.dtype == np.int64
    assert (labels.min(), labels.max()) == (1, 1)


# Pictures


@pytest.mark.parametrize(
    ("mode", "suffix", "bytes_each"),
    [
        ("RGB", "png", 5),
        ("L", "gif", 5),
        ("RGBA", "png", 9),
        ("LA", "png", 9),
        ("F", "tiff", 12),
        ("RGB", "webp", 20),
        ("RGB", "jpg", 10),
    ],
)
def test_a_picture_may_take_so_much_memory(
    mode: str, suffix: str, bytes_each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (40, 30)).save(path, progressive=True) if suffix == "jpg" else Image.new(
        mode, (40, 30)
    ).save(path)
    monkeypatch.setattr(decoding, "MAX_BYTES", 1200 * bytes_each)
    assert decode(path, Format(4, 4, 3)).shape == (4, 4, 3)
    monkeypatch.setattr(decoding, "MAX_BYTES", 1200 * bytes_each - 1)
    with pytest.raises(BadPictureError, match=r"expected at most 1,199 pixels of .*, found 1,200"):
        decode(path, Format(4, 4, 3))


def test_strips_of_a_picture_are_converted_as_the_whole(tmp_path: Path) -> None:
    height, width = 600, 5  # more rows than a strip has
    random = np.random.default_rng(0)
    rgba = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    deep = random.integers(0, 65536, (height, width), dtype=np.uint16)
    real = random.uniform(-100, 400, (height, width)).astype(np.float32)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(real).save(tmp_path / "real.tiff")
    found = decode(tmp_path / "rgba.png", Format(height, width, 3))
    expected = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255.0))
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.98
    for name, eight in (("deep.png", deep >> 8), ("real.tiff", real.clip(0, 255).astype(np.uint8))):
        found = decode(tmp_path / name, Format(height, width, 1))
        np.testing.assert_array_equal(found[..., 0], eight)


# Limits of containers


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1000000\n"}, 10**6),
        ("0::/a/b\n", {"a/b/memory.max": "5000\n", "a/memory.max": "1000000\n"}, 5000),
        ("0::/elsewhere\n", {"memory.max": "7000\n"}, 7000),
        ("0::/../..\n", {"memory.max": "7000\n"}, 7000),
        ("4:cpu:/x\n5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "6000\n"}, 6000),
        ("0::/a\n", {"a/memory.max": "nonsense"}, None),
        ("", {}, None),
    ],
)
def test_the_memory_of_a_container_counts(
    own: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    (tmp_path / "own").write_text(own)
    machine = memory(own=tmp_path / "missing")
    found = memory(cgroups=tmp_path / "groups", own=tmp_path / "own")
    assert found == (machine if expected is None else expected)
