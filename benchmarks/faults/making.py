"""How files made to hurt, and honest ones, are made: functions that put one into a folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import scipy.io
import torch
from PIL import Image

from deepcnn import presets
from deepcnn.config import to_dict
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import tfrecord
from deepcnn.data.source import in_memory
from deepcnn.inputs.transform import Transform

Make = Callable[[Path], object]
GB = 2**30
MB = 2**20
EXECUTED = "executed"  # a folder that appears where a file's code runs
CONTROL = "\x1b]0;owned\x07\x1b[31m\u202ered\x9b2J"


def set_folder(place: Path) -> Path:
    """Return the folder of a data set, which is made."""
    folder = place / "set"
    folder.mkdir(exist_ok=True)
    return folder


def text_file(name: str, text: str) -> Make:
    """Return what writes a file of text."""
    return lambda place: (place / name).write_text(text, errors="surrogateescape")


def file_of(name: str, content: bytes) -> Make:
    """Return what writes a file of bytes."""

    def make(place: Path) -> None:
        (place / name).parent.mkdir(exist_ok=True, parents=True)
        (place / name).write_bytes(content)

    return make


class Touch:
    """What writes a file outside when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (EXECUTED,)


def npz_of(images: Any, labels: Any = None) -> Make:
    """Return what writes NumPy's arrays of a data set."""
    labels = np.arange(len(images)) % 2 if labels is None else labels
    return lambda place: np.savez(set_folder(place) / "train.npz", images=images, labels=labels)


def npz_of_objects(place: Path) -> None:
    """Write an archive whose arrays are pickles."""
    evil = np.array([Touch()], dtype=object)
    np.savez(set_folder(place) / "train.npz", images=evil, labels=evil)


def npz_deflated(head: bytes, zeros: int, *, labels: bytes = b"", name: str = "images.npy") -> Make:
    """Return an .npz whose images are a header and so many zeros."""

    def make(place: Path) -> None:
        path = set_folder(place) / "train.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(head)
                for _ in range(zeros // MB):
                    file.write(bytes(MB))
                file.write(bytes(zeros % MB))
            archive.writestr("labels.npy", labels or npy_head("<i8", (1,)) + bytes(8))

    return make


def npy_head(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the head of an array."""
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def npy_literal(literal: str) -> bytes:
    """Return a head of an array that is any text."""
    head = literal.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(65535, len(head))) + head


def idx_of(images: list[int], labels: list[int], zeros: tuple[int, int], *, pack: bool) -> Make:
    """Return what writes files as MNIST's: their heads, and so many zeros."""

    def make(place: Path) -> None:
        folder = set_folder(place)
        for name, head, count in (
            ("train-images-idx3-ubyte", images, zeros[0]),
            ("train-labels-idx1-ubyte", labels, zeros[1]),
        ):
            content = np.array(head, ">u4").tobytes() + bytes(count)
            path = folder / (name + ".gz" * pack)
            path.write_bytes(gzip.compress(content, 1) if pack else content)

    return make


def mat_of(values: dict[str, Any]) -> Make:
    """Return what writes a file as SVHN's."""
    return lambda place: scipy.io.savemat(
        set_folder(place) / "train_32x32.mat", values, do_compression=True
    )


def mat_of_bytes(content: bytes) -> Make:
    """Return what writes a file of MATLAB's with any content."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return file_of("set/train_32x32.mat", head + content)


def picture_of(mode: str, size: tuple[int, int], form: str, **more: Any) -> Make:
    """Return what writes a black picture."""
    return lambda place: Image.new(mode, size).save(place / "a", form, **more)


def png_of(width: int, height: int, colour: int, depth: int = 8, *, rows: bool = True) -> Make:
    """Return a PNG of zeros, whose rows are made piece by piece."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    def make(place: Path) -> None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
        row = bytes(1 + width * channels * depth // 8)
        packer = zlib.compressobj(1)
        data = b"".join(packer.compress(row) for _ in range(height if rows else 0))
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
        body = chunk(b"IHDR", head) + palette + chunk(b"IDAT", data + packer.flush())
        (place / "a").write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))

    return make


def png_text(place: Path) -> None:
    """Write a picture with 64 MB of text."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for number in range(64):
        info.add_text(f"k{number}", " " * MB, zip=True)
    Image.new("L", (8, 8)).save(place / "a", "PNG", pnginfo=info)


def gif_of(frames: int) -> Make:
    """Return what writes an animation."""

    def make(place: Path) -> None:
        images = [Image.new("P", (500, 500), i % 256) for i in range(frames)]
        images[0].save(place / "a", "GIF", save_all=True, append_images=images[1:])

    return make


def tar_member(name: str, content: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Return a member of an archive."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def declared_member(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a head of a member, without the content that it declares."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def tar_of(content: bytes, zeros: int = 2048) -> Make:
    """Return what writes an archive of members, followed by zeros."""

    def make(place: Path) -> None:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        parts = [packer.compress(content)]
        parts += [packer.compress(bytes(MB)) for _ in range(zeros // MB)]
        parts += [packer.compress(bytes(zeros % MB)), packer.flush()]
        (place / "a").write_bytes(b"".join(parts))

    return make


def run_of(config: Any, inputs: Any) -> Make:
    """Return a run with other settings; a text is written as it is."""

    def make(place: Path) -> None:
        run = place / "run"
        run.mkdir()
        images = in_memory(Arrays(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), ("a",)))
        transform = Transform.of(
            images, crop=1, pad=0, flip="none", contrast=None, standardize="image"
        )
        usual = {
            "config.json": to_dict(presets.tiny()),
            "inputs.json": {"inputs": transform.to_dict(), "classes": ["a", "b"]},
        }
        for name, given in (("config.json", config), ("inputs.json", inputs)):
            text = given if isinstance(given, str) else json.dumps({**usual[name], **given})
            (run / name).write_text(text, errors="surrogateescape")

    return make


def nested_lists(depth: int = 200_000) -> str:
    """Return lists in lists, as JSON."""
    return "[" * depth + "]" * depth


def link_at(where: str, to: str, more: Make | None = None) -> Make:
    """Return what makes a link."""
    return _in_place_of(where, lambda path: path.symlink_to(to), more)


def pipe_at(where: str, more: Make | None = None) -> Make:
    """Return what makes a pipe that nobody writes to."""
    return _in_place_of(where, os.mkfifo, more)


def _in_place_of(where: str, put: Make, more: Make | None) -> Make:
    """Return what makes `more`, then puts something there, in place of what may be there."""

    def make(place: Path) -> None:
        if more is not None:
            more(place)
        path = place / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        put(path)

    return make


def sparse_at(where: str, head: bytes, size: int, more: Make | None = None) -> Make:
    """Return a file that is said to be long, and takes no room on the disk."""

    def make(place: Path) -> None:
        if more is not None:
            more(place)
        path = place / where
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)

    return make


def checkpoint_of(metadata: dict[str, str], tensors: dict[str, Any] | None = None) -> Make:
    """Return what writes a checkpoint."""
    found = tensors or {"a": torch.zeros(2)}
    content = safetensors.torch.save(found, metadata)
    return file_of("step-000000001.safetensors", content)


def safetensors_head(name: str, head: bytes, length: int | None = None, tail: bytes = b"") -> Make:
    """Return what writes a file of weights: its head, and what follows."""
    size = len(head) if length is None else length
    return file_of(name, struct.pack("<Q", size) + head + tail)


def class_folders(names: list[bytes], content: bytes | None = None) -> Make:
    """Return what makes class folders of these names, each with a picture or `content`."""

    def make(place: Path) -> None:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG")
        for name in [b"usual", *names]:
            folder = os.fsencode(set_folder(place)) + b"/" + name
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            with open(folder + b"/1.png", "wb") as file:  # noqa: PTH123 (names are bytes)
                file.write(buffer.getvalue())
            if content is not None:
                with open(folder + b"/" + os.fsencode(CONTROL) + b"\xff.png", "wb") as file:  # noqa: PTH123
                    file.write(content)

    return make


def table_of(text: str) -> Make:
    """Return what makes a picture with a table of labels."""

    def make(place: Path) -> None:
        folder = set_folder(place)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
        (folder / "train.csv").write_text(text, errors="surrogateescape")

    return make


def records_of(layout: str) -> Make:
    """Return what makes records of one length."""

    def make(place: Path) -> None:
        (set_folder(place) / "records.json").write_text(layout)
        (set_folder(place) / "train.bin").write_bytes(bytes(1000))

    return make


def tfrecord_of(payload: bytes, *, right: bool = True) -> Make:
    """Return what writes one record, its sums right or not."""
    length = struct.pack("<Q", len(payload))
    sums = [struct.pack("<I", tfrecord.masked_crc(part) * right) for part in (length, payload)]
    return file_of("set/train.tfrecord", length + sums[0] + payload + sums[1])
