"""The command line on data of every kind, and on files that are not what they seem."""

from __future__ import annotations

import gzip
import json
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepcnn.console import console
from deepcnn.data.formats import idx
from deepcnn.data.formats.tfrecord_files import masked_crc
from deepcnn.data.open import load_dataset
from deepcnn.events import Reading
from tests.helpers.command import ENVIRONMENT, deepcnn, run_here

IMAGES = np.arange(6 * 8 * 9 * 3, dtype=np.uint32).astype(np.uint8).reshape(6, 8, 9, 3)
GRAY = idx.encode_images(IMAGES[..., :1])
LABELS = np.array([0, 1, 2, 0, 1, 2])


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_of = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_of)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def picture(root: Path, name: str, content: bytes | None = None) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.fromarray(IMAGES[0]).save(path)
    else:
        path.write_bytes(content)


def zipped(root: Path, content: bytes) -> None:
    (root / "train-images-idx3-ubyte.gz").write_bytes(content)
    (root / "train-labels-idx1-ubyte").write_bytes(idx.encode_labels(LABELS))


def records(root: Path, content: bytes) -> None:
    (root / "train.tfrecords").write_bytes(content)


def long_record(root: Path) -> None:
    length = struct.pack("<Q", 2**63)
    records(root, length + struct.pack("<I", masked_crc(length)) + b"x" * 100)


def empty_class(root: Path) -> None:
    picture(root, "cat/1.png")
    (root / "dog").mkdir()


def two_classes(root: Path) -> None:
    picture(root, "a\nb/1.png")
    picture(root, "ü/2.png", b"")


def no_labels(root: Path) -> None:
    (root / "train-images-idx3-ubyte").write_bytes(GRAY)


def loop(root: Path) -> None:
    picture(root, "cat/1.png", b"")
    (root / "cat" / "again").symlink_to(root, target_is_directory=True)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated gzip": (lambda p: zipped(p, gzip.compress(GRAY)[:-9]), "ends early"),
    "wrong magic": (
        lambda p: zipped(p, gzip.compress(b"\0\0\x0d\x03" + GRAY[4:])),
        "found 0x00000d03",
    ),
    "dimensions": (lambda p: zipped(p, gzip.compress(GRAY[:-5])), "bytes"),
    "length of 2**63": (long_record, "9,223,372,036,854,775,808"),
    "zero bytes": (lambda p: records(p, b""), "train.tfrecords"),
    "bomb": (lambda p: picture(p, "cat/1.png", bomb()), "67,108,864 pixels"),
    "no picture": (lambda p: picture(p, "cat/1.png", b"GIF8"), "cat/1.png"),
    "empty class": (empty_class, "dog"),
    "newline in a class": (two_classes, "1 of 2 files"),
    "links in a circle": (loop, "cat/1.png"),
    "missing labels": (no_labels, "labels-idx1-ubyte, which is not there"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_clear_error_and_nothing_is_written(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[name]
    data = tmp_path / "data"
    data.mkdir()
    make(data)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert run_here(monkeypatch, "train", "tiny", "--data", str(data)) == 1
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("deepcnn: ")
    assert len(told.splitlines()) == 1
    assert not list(work.iterdir())


def test_converted_data_train_and_show(tmp_path: Path) -> None:
    done = deepcnn(
        *("data", "convert", "synthetic", "out", "--to", "tfrecord"),
        *("--shards", "2", "--validation-size", "5000"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "out: 3,192 train, 5,000 validation, 512 test. Train on it:" in done.stdout
    assert len(load_dataset(tmp_path / "out", "train")) == 3192
    done = deepcnn("data", "show", "out", "--split", "validation", cwd=tmp_path)
    assert "5,000 images, 32×32×3" in done.stdout
    with Image.open(tmp_path / "out-validation.png") as sheet:
        assert sheet.size[0] > 500
    done = deepcnn(
        *("train", "tiny", "--data", "out", "--feed", "queued", "--steps", "11"),
        *("--run-dir", "run", "--readers", "3"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "Filling queue with 1276 images before starting to train." in done.stdout
    assert ": step 11, accuracy " in done.stdout
    assert " of 5,000 validation images, 95 % interval " in done.stdout
    done = deepcnn("data", "convert", "synthetic", "out", "--to", "npz", cwd=tmp_path)
    assert done.returncode == 1
    assert "Nothing is overwritten" in done.stderr


def test_the_mnist_program_prints_the_references_lines(tmp_path: Path) -> None:
    done = deepcnn(*("train", "mnist", "--data", "synthetic", "--steps", "101"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("Step 100: loss = ") and line.endswith(" sec)") for line in lines)
    for title, count in (("Training", 3192), ("Validation", 5000), ("Test", 512)):
        at = lines.index(f"{title} Data Eval:")
        assert lines[at + 1].startswith(f"Num examples: {count}  Num correct: ")
        assert "  Precision @ 1: 0." in lines[at + 1] or "  Precision @ 1: 1.0" in lines[at + 1]


@pytest.mark.parametrize("feed", ["queued", "streamed"])
def test_ctrl_c_stops_a_feed_with_threads_and_it_resumes(tmp_path: Path, feed: str) -> None:
    trainer = subprocess.Popen(
        [
            *(sys.executable, "-m", "deepcnn", "train", "tiny", "--steps", "100000", "--json"),
            *("--feed", feed, "--run-dir", "run", "--summary-every", "0"),
        ],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert trainer.stdout is not None
    for line in trainer.stdout:
        if json.loads(line)["event"] == "Stepped":
            break
    trainer.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, error = trainer.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert trainer.returncode == 128 + signal.SIGINT, error
    assert error == ""
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "Interrupted"
    done = deepcnn("train", "--resume", "run", "--steps", str(last["step"] + 3), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_slow_reading_is_told_in_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console(as_json=False) as tell:
        for done in range(0, 1001, 100):
            tell(Reading("reading train", done, 1000))
            now[0] += 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "reading train: 300 of 1,000, 14 s left",
        "reading train: 600 of 1,000, 8 s left",
        "reading train: 900 of 1,000, 2 s left",
    ]
