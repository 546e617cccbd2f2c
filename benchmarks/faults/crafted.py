"""Files made to hurt, and honest ones of the same kinds to compare them with."""

from __future__ import annotations

import functools
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from deepcnn.data import download
from deepcnn.data.formats.decoding import Format, decode
from deepcnn.data.open import load_dataset
from deepcnn.events import Noted
from deepcnn.inference.parent import open_parent
from deepcnn.runs import checkpoint
from deepcnn.runs.log import read_log
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn
from faults.making import (
    CONTROL,
    GB,
    MB,
    Make,
    Touch,
    checkpoint_of,
    class_folders,
    declared_member,
    file_of,
    gif_of,
    idx_of,
    link_at,
    mat_of,
    mat_of_bytes,
    nested_lists,
    npy_head,
    npy_literal,
    npz_deflated,
    npz_of,
    npz_of_objects,
    picture_of,
    pipe_at,
    png_of,
    png_text,
    records_of,
    run_of,
    safetensors_head,
    set_folder,
    sparse_at,
    table_of,
    tar_member,
    tar_of,
    text_file,
    tfrecord_of,
)


@dataclass(frozen=True)
class Crafted:
    """A file made to hurt: what it is, of which kind, how it is made and read in a new folder.

    `refused`: it must end with an error; else it may be read as well, within the limits.
    """

    what: str
    kind: str
    make: Make
    refused: bool = True
    keeps: bool = True

    def read(self, place: Path) -> object:
        """Read it as a command does."""
        return READERS[self.kind](place)


# How each kind is read


def _data(place: Path) -> str | None:
    said: list[str] = []

    def hear(event: object) -> None:
        if isinstance(event, Noted):
            said.append(event.text)

    load_dataset(place / "set", "train", skip_bad=True, emit=hear)
    return "; ".join(said) or None


def _run(place: Path) -> None:
    run = Run.open(place / "run")
    run.config()
    TrainedOn.read(run)


READERS: dict[str, Callable[[Path], object]] = {
    "data": _data,
    "picture": lambda place: decode(place / "a", Format(8, 8, 3)).sum() * 0 or None,
    "archive": lambda place: download.read_members(place / "a", {"wanted": 10}) and None,
    "run": _run,
    "log": lambda place: read_log(place / "log.jsonl") and None,
    "checkpoint": lambda place: checkpoint.load(place / "step-000000001.safetensors") and None,
    "weights": lambda place: open_parent(place / "a.safetensors") and None,
}


def honest() -> dict[str, Crafted]:
    """Return an honest file of each kind that can be read without a training."""
    return {
        "data": Crafted("honest", "data", npz_of(np.zeros((50, 8, 8, 3), np.uint8))),
        "picture": Crafted("honest", "picture", picture_of("RGB", (640, 480), "PNG")),
        "archive": Crafted("honest", "archive", tar_of(tar_member("wanted", b"0123456789"))),
        "run": Crafted("honest", "run", run_of({}, {})),
        "log": Crafted("honest", "log", text_file("log.jsonl", '{"event": "Saved"}\n')),
    }


# Honest sets that `fuzz` changes


def _pixels() -> Any:
    return np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), np.uint8)


def numpy_set(*, deflated: bool) -> Make:
    """Return a set of NumPy's."""
    save = np.savez_compressed if deflated else np.savez
    labels = np.arange(6) % 2
    return lambda place: save(set_folder(place) / "train.npz", images=_pixels(), labels=labels)


def matlab_set() -> Make:
    """Return a set as SVHN's."""
    return mat_of({"X": _pixels().transpose(1, 2, 3, 0), "y": np.arange(1, 7, dtype="u1")[:, None]})


def idx_set() -> Make:
    """Return a set as MNIST's."""
    return idx_of([0x803, 6, 5, 5], [0x801, 6], (150, 6), pack=False)


def table_set() -> Make:
    """Return a picture with a table of labels."""
    return table_of("id,label\n1,a\n")


def records_set() -> Make:
    """Return records of one length."""
    return records_of('{"shape": [3, 11, 3], "label_bytes": 1}')


ONE_PIXEL = (100_000_000, 1, 1)


def _numpy_sets() -> Iterator[tuple[str, Make]]:
    many = ONE_PIXEL[0]
    yield "npz: arrays that are pickles", npz_of_objects
    yield "npz: a pickle by that name", file_of("set/train.npz", pickle.dumps(Touch()))
    yield (
        "npz: 10⁸ one-pixel images",
        npz_deflated(
            npy_head("|u1", ONE_PIXEL), many, labels=npy_head("|u1", (many,)) + bytes(many)
        ),
    )
    yield "npz: a header of 10¹⁵ images", npz_deflated(npy_head("|u1", (10**15, 8, 8, 3)), 64)
    yield "npz: a negative shape", npz_deflated(npy_head("|u1", (-1, 8, 8, 3)), 64)
    yield "npz: a shape beyond 64 bits", npz_deflated(npy_head("|u1", (2**70, 1, 1)), 64)
    for what, literal in {
        "nested": "(" * 5000,
        "a call": "__import__('os').mkdir('executed')",
        "a product": "{'descr':'|u1','fortran_order':False,'shape':(9**9**9,)}",
        "a huge number": "{'descr':'|u1','fortran_order':False,'shape':(" + "9" * 4000 + ",1,1)}",
        "a structure": "{'descr':[('a','|u1',(99999999,))],'fortran_order':False,'shape':(1,)}",
        "text for the terminal": "{'descr':'" + CONTROL.encode("unicode_escape").decode() + "'}",
    }.items():
        yield f"npz: a header that is {what}", npz_deflated(npy_literal(literal), 64)
    yield "npz: names that leave", npz_deflated(b"x", 0, name="../../../outside/precious.npy")
    yield "npz: a name for the terminal", npz_deflated(b"x", 0, name=f"{CONTROL}.npy")
    yield "npz: no archive", file_of("set/train.npz", b"PK\x03\x04" + bytes(4000))
    yield "npz: a directory of 60,000 members", _many_members
    yield (
        "npz: labels that are text",
        npz_of(np.zeros((4, 8, 8, 3), np.uint8), np.array(list("abcd"))),
    )
    yield "npz: labels of 2⁶³", npz_of(np.zeros((1, 8, 8, 3), np.uint8), np.array([2**63], "u8"))
    yield (
        "npz: classes of 4 GB",
        npz_deflated(npy_head("<U1000000000", (1,)), 64, name="classes.npy"),
    )


def _sets_of_other_forms() -> Iterator[tuple[str, Make]]:
    many = ONE_PIXEL[0]
    yield (
        "idx: 10⁸ one-pixel images, gzip",
        idx_of([0x803, *ONE_PIXEL], [0x801, many], (many, many), pack=True),
    )
    yield "idx: 2³² images", idx_of([0x803, 2**32 - 1, 1, 1], [0x801, 4], (4, 4), pack=True)
    yield (
        "idx: a side of 2³²",
        idx_of([0x803, 1, 2**32 - 1, 2**32 - 1], [0x801, 1], (9, 1), pack=False),
    )
    yield "idx: no images", idx_of([0x803, 0, 1, 1], [0x801, 0], (0, 0), pack=False)
    yield (
        "mat: 1.4×10⁷ one-pixel images that are too many",
        mat_of({"X": np.zeros((1, 1, 1, 16_000_000), "u1"), "y": np.ones((16_000_000, 1), "u1")}),
    )
    yield "mat: objects", mat_of({"X": np.array([{"a": 1}], object), "y": np.array([[1]])})
    yield "mat: a length of 4 GB", mat_of_bytes(struct.pack("<II", 14, 2**32 - 1) + bytes(99))
    yield (
        "mat: compressed zeros",
        mat_of_bytes(
            struct.pack("<II", 15, len(zeros := zlib.compress(bytes(50 * MB), 1))) + zeros
        ),
    )
    yield "mat: a name for the terminal", mat_of({"X\u001b"[:1]: np.zeros(3), "y": np.zeros(3)})
    yield "mat: of version 7.3", file_of("set/train_32x32.mat", bytes(124) + b"\x00\x02IM")
    yield "tfrecord: a length of 2⁶³", file_of("set/train.tfrecord", b"\xff" * 8 + bytes(99))
    yield "tfrecord: a wrong sum", tfrecord_of(b"abc", right=False)
    yield "tfrecord: deep nesting", tfrecord_of(b"\x0a\x7f" * 5000)
    yield "tfrecord: a varint without end", tfrecord_of(b"\xff" * 4000)
    for what, layout in {
        "nested": nested_lists(20_000),
        "a shape of 2⁶³": '{"shape": [9223372036854775807, 9223372036854775807, 4]}',
        "infinite": '{"shape": [1e999, 1, 1]}',
        "a text for the terminal": json.dumps({"shape": [8, 8, 3], CONTROL: 1}),
        "other fields": '{"shape": [1, 1, 1], "__class__": 3}',
    }.items():
        yield f"records.json: {what}", records_of(layout)
    for what, text in {
        "a path that leaves": "id,label\n../../outside/precious,a\n",
        "an absolute path": "id,label\n/etc/passwd,a\n",
        "a device": "id,label\n/dev/zero,a\n",
        "a name for the terminal": f"id,label\n{CONTROL},a\n",
        "a field of 50 MB": 'id,label\n"' + "x" * (50 * MB) + '",a\n',
        "an open quote": 'id,label\n"1,a\n' * 10,
        "10⁵ columns": ",".join(["id", "label", *map(str, range(10**5))]) + "\n1,a\n",
        "zeros": "id,label\n\0,a\n",
    }.items():
        yield f"table: {what}", table_of(text)
    yield "pixels in text: huge numbers", file_of("set/train.csv", b"label," + b"9" * 10**6 + b"\n")
    yield "a data set that is a pipe", pipe_at("set/train.npz")
    yield "a data set that is an endless device", link_at("set/train.npz", "/dev/zero")
    yield "a data set that is a link to itself", link_at("set/train.npz", "train.npz")
    yield "pictures that are pipes", pipe_at("set/a/1.png")
    yield "pictures that are endless devices", link_at("set/a/1.png", "/dev/zero")
    yield "class folders that lead to themselves", link_at("set/a", ".")
    yield "a class that is no UTF-8", class_folders([b"\xff\xfe"])


def _many_members(place: Path) -> None:
    with zipfile.ZipFile(set_folder(place) / "train.npz", "w") as archive:
        for number in range(60_000):
            archive.writestr(f"{number}.npy", b"")


def _pictures() -> Iterator[tuple[str, Make]]:
    yield "png: RGBA, 67 million pixels", png_of(8192, 8192, 6)
    yield "png: 16 bit RGBA, 40 million pixels", png_of(8000, 5000, 6, 16)
    yield "png: RGB, 2³¹ pixels a side", png_of(2**31 - 1, 2**31 - 1, 2, rows=False)
    yield "png: no pixels", png_of(0, 0, 2, rows=False)
    yield "png: rows that are missing", png_of(2000, 2000, 2, rows=False)
    yield "webp: 40 million pixels", picture_of("RGB", (8000, 5000), "WEBP")
    yield (
        "tiff: float, 40 million pixels",
        picture_of("F", (8000, 5000), "TIFF", compression="tiff_deflate"),
    )
    yield "gif: 65,535 pixels a side", file_of("a", b"GIF89a\xff\xff\xff\xff\x00\x00\x00;")
    yield (
        "bmp: negative sides",
        file_of(
            "a",
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -9, -(2**31), 1, 24, *[0] * 6),
        ),
    )
    yield "ppm: 10⁹ pixels a side", file_of("a", b"P6 1000000000 1000000000 255\n")
    yield "ppm: a header without end", file_of("a", b"P6 " + b"1" * 10**6)
    yield "eps: a program", file_of("a", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    yield (
        "svg: with an entity",
        file_of("a", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'),
    )
    yield "a picture that is a pipe", pipe_at("a")
    yield "a picture that is an endless device", link_at("a", "/dev/zero")
    yield "a picture that is a link to itself", link_at("a", "a")
    yield (
        "tiff: directories in a circle",
        file_of(
            "a",
            b"II*\x00"
            + struct.pack("<IH", 8, 1)
            + struct.pack("<HHII", 256, 4, 1, 9)
            + b"\x08\0\0\0",
        ),
    )


def _archives() -> Iterator[tuple[str, Make]]:
    for what, kind in (
        ("a name", tarfile.GNUTYPE_LONGNAME),
        ("a link's name", tarfile.GNUTYPE_LONGLINK),
        ("a pax header", tarfile.XHDTYPE),
        ("a pax header of all", tarfile.XGLTYPE),
    ):
        yield f"tar: {what} of 1 GB", tar_of(declared_member("././@LongLink", GB, kind), 20 * MB)
    yield "tar: 1 GB before what is wanted", tar_of(declared_member("other", GB), 200 * MB)
    yield "tar: a member of 1 TB", tar_of(declared_member("wanted", 2**40))
    yield "tar: a link", tar_of(tar_member("wanted", b"", tarfile.SYMTYPE, "/etc/passwd"))
    yield "tar: a device", tar_of(tar_member("wanted", b"", tarfile.CHRTYPE))
    yield "tar: cut", tar_of(declared_member("wanted", 10), 0)
    yield "tar: a pax number", tar_of(tar_member("x", b"18 size=-99999999\n", tarfile.XHDTYPE))
    yield "tar: xz", file_of("a", b"\xfd7zXZ\0\0\4" + b"\xff" * 999)
    yield "an archive that is a pipe", pipe_at("a")
    yield "an archive that is an endless device", link_at("a", "/dev/zero")


def _runs() -> Iterator[tuple[str, Make]]:
    yield "config.json: deep nesting", run_of(nested_lists(), {})
    yield "config.json: 2 GB", sparse_at("run/config.json", b"{", 2 * GB, run_of({}, {}))
    yield "config.json: a network that is code", run_of({"model": {"name": "os:system"}}, {})
    yield "config.json: text for the terminal", run_of({CONTROL: 1}, {})
    yield "config.json: infinite", run_of({"steps": float("inf")}, {})
    yield "config.json: a number of 10⁵ digits", run_of('{"steps": ' + "9" * 10**5 + "}", {})
    yield "config.json: a list", run_of("[]", {})
    yield "config.json: no UTF-8", run_of("\udcff\udcfe", {})
    yield "inputs.json: deep nesting", run_of({}, nested_lists())
    yield "inputs.json: a pipe", pipe_at("run/inputs.json", run_of({}, {}))
    yield "inputs.json: an endless device", link_at("run/inputs.json", "/dev/zero", run_of({}, {}))
    yield "inputs.json: text for the terminal", run_of({}, {"inputs": {CONTROL: 1}})
    yield "inputs.json: null", run_of({}, "null")


def _checkpoints() -> Iterator[tuple[str, Make]]:
    name = "step-000000001.safetensors"
    yield "checkpoint: a pickle", file_of(name, pickle.dumps(Touch()))
    yield "checkpoint: torch's own form", lambda place: torch.save({"a": Touch()}, place / name)
    yield "checkpoint: a header of 2⁶³ bytes", safetensors_head(name, b"{}", 2**63)
    yield (
        "checkpoint: a header that is nested",
        safetensors_head(name, nested_lists(50_000).encode()),
    )
    yield (
        "checkpoint: offsets that leave",
        safetensors_head(name, b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    )
    yield (
        "checkpoint: a shape of 2⁶²",
        safetensors_head(
            name, b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'
        ),
    )
    yield "checkpoint: metadata that is nested", checkpoint_of({"deepcnn": nested_lists(50_000)})
    yield (
        "checkpoint: an infinite step",
        checkpoint_of({"deepcnn": '{"step": 1e999, "sha256": ""}'}),
    )
    yield (
        "checkpoint: text for the terminal",
        checkpoint_of({"deepcnn": json.dumps({"step": CONTROL, "sha256": CONTROL})}),
    )
    yield "checkpoint: a wrong sum", checkpoint_of({"deepcnn": '{"step": 1, "sha256": "0"}'})
    yield "checkpoint: empty", file_of(name, b"")


def _weights() -> Iterator[tuple[str, Make]]:
    yield "weights: a pickle", file_of("a.safetensors", pickle.dumps(Touch()))
    yield (
        "weights: nothing of ours",
        file_of("a.safetensors", safetensors.torch.save({"a": torch.zeros(1)})),
    )
    yield (
        "weights: nested",
        file_of(
            "a.safetensors",
            safetensors.torch.save({"a": torch.zeros(1)}, {"deepcnn": nested_lists(50_000)}),
        ),
    )
    yield "weights: an endless device", link_at("a.safetensors", "/dev/zero")
    yield "weights: a pipe", pipe_at("a.safetensors")


def _logs() -> Iterator[tuple[str, Make]]:
    yield "log: nested", text_file("log.jsonl", nested_lists() + "\n")
    yield "log: text for the terminal", text_file("log.jsonl", CONTROL + "\n")
    yield "log: no UTF-8", file_of("log.jsonl", b"\xff\xfe\n")
    yield (
        "log: 1 GB in gzip",
        lambda place: tar_of(b"{}\n", GB)(place) or (place / "a").rename(place / "log.jsonl"),
    )


@functools.cache
def crafted() -> tuple[Crafted, ...]:
    """Return all of them."""
    made = {
        "data": (*_numpy_sets(), *_sets_of_other_forms()),
        "picture": _pictures(),
        "archive": _archives(),
        "run": _runs(),
        "checkpoint": _checkpoints(),
        "weights": _weights(),
        "log": _logs(),
    }
    found = [Crafted(what, kind, make) for kind, all_ in made.items() for what, make in all_]
    taken = [
        ("picture: PNG with 64 MB of text", "picture", png_text),
        (
            "tar: a sparse member",
            "archive",
            tar_of(tar_member("wanted", b"x" * 10, tarfile.GNUTYPE_SPARSE)),
        ),
        ("gif: 200 frames, of which one counts", "picture", gif_of(200)),
        ("pictures whose names command a terminal", "data", class_folders([b"b"], b"none")),
        ("classes whose names command a terminal", "data", class_folders([os.fsencode(CONTROL)])),
    ]
    return (*found, *(Crafted(*each, refused=False) for each in taken))
