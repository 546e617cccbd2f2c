"""Whatever bytes a file has, it is read or ends with one of deepcnn's errors, in little time.

    python benchmarks/run.py fuzz --seconds 120

Honest files of every kind are changed at random (bits flipped, bytes set to telling values, parts
cut out, doubled, exchanged with those of other files, numbers written as the largest there are) and
read again, for so many seconds, all kinds in turn. What raises anything foreign,
or takes more than five seconds of processor time, is kept in a folder and told. Needs scipy.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from deepcnn.data.convert import convert
from deepcnn.data.formats.decoding import BadPictureError
from deepcnn.errors import DeepcnnError
from deepcnn.runs import checkpoint
from deepcnn.settings import DataSpec
from faults import crafted
from tools import program

SLOW = 5.0  # seconds of processor time
TELLING = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\0" * 8,
    b"[",
    b"{",
    b'"',
    b",",
)
NUMBERS = (b"-1", b"0", b"1e999", b"9" * 20, b"9223372036854775808", b"NaN")


@dataclass(frozen=True)
class Parser:
    """What is fuzzed: honest files by their names in a new folder, and what reads that folder.

    `victim`: the one whose bytes are changed.
    """

    name: str
    files: dict[str, bytes]
    victim: str
    read: Callable[[Path], object]


def parsers(folder: Path) -> list[Parser]:
    """Return all of them, made in a folder."""
    found = [
        _of_pictures(folder, suffix) for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff")
    ]
    found.append(_of_pictures(folder, "ppm"))
    made: dict[str, tuple[crafted.Make, str, str]] = {
        "npz": (crafted.numpy_set(deflated=False), "set/train.npz", "data"),
        "npz, deflated": (crafted.numpy_set(deflated=True), "set/train.npz", "data"),
        "mat": (crafted.matlab_set(), "set/train_32x32.mat", "data"),
        "idx images": (crafted.idx_set(), "set/train-images-idx3-ubyte", "data"),
        "idx labels": (crafted.idx_set(), "set/train-labels-idx1-ubyte", "data"),
        "table": (crafted.table_set(), "set/train.csv", "data"),
        "records.json": (crafted.records_set(), "set/records.json", "data"),
        "tar": (crafted.honest()["archive"].make, "a", "archive"),
        "config.json": (crafted.honest()["run"].make, "run/config.json", "run"),
        "inputs.json": (crafted.honest()["run"].make, "run/inputs.json", "run"),
        "log": (crafted.honest()["log"].make, "log.jsonl", "log"),
    }
    for number, (name, (make, victim, kind)) in enumerate(made.items()):
        place = folder / f"made-{number}"
        place.mkdir()
        make(place)
        found.append(Parser(name, _files(place), victim, crafted.READERS[kind]))
    found += [_converted(folder, form) for form in ("tfrecord", "csv")]
    found.append(_checkpoint(folder))
    weights = safetensors.torch.save({"a": torch.zeros(3)}, {"deepcnn": "{}"})
    name = "a.safetensors"
    found.append(Parser("weights", {name: weights}, name, crafted.READERS["weights"]))
    return found


def _files(place: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths}


def _of_pictures(folder: Path, suffix: str) -> Parser:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    path = folder / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    return Parser(suffix, {"a": path.read_bytes()}, "a", crafted.READERS["picture"])


def _converted(folder: Path, form: str) -> Parser:
    source, place = folder / f"source-{form}", folder / f"converted-{form}"
    source.mkdir()
    place.mkdir()
    random_ = np.random.default_rng(0)
    images = random_.integers(0, 256, (6, 5, 5, 1), np.uint8)
    np.savez(source / "train.npz", images=images, labels=np.arange(6) % 2)
    convert(DataSpec(data=str(source)), place / "set", form)  # type: ignore[arg-type]
    files = _files(place)
    victim = max(files, key=lambda name: len(files[name]))
    return Parser(form, files, victim, crafted.READERS["data"])


def _checkpoint(folder: Path) -> Parser:
    place = folder / "checkpoint"
    place.mkdir()
    path = checkpoint.save(place, 1, {"a": torch.zeros(3)}, keep=1)
    return Parser("checkpoint", _files(place), path.name, crafted.READERS["checkpoint"])


def changed(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return bytes with one to four changes; `other`: what parts are taken from."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(len(found) + 1)
        end = min(len(found), at + chance.choice([1, 2, 4, 8, 30, 200]))
        match chance.randrange(7):
            case 0 if found:
                found[at % len(found)] ^= 1 << chance.randrange(8)
            case 1:
                new = chance.choice(TELLING)
                found[at : at + len(new)] = new
            case 2:
                del found[at:end]
            case 3:
                found[at:at] = found[at:end] * chance.choice([1, 2, 50])
            case 4 if other:
                begin = chance.randrange(len(other))
                found[at:end] = other[begin : begin + end - at]
            case 5:
                found[at:end] = chance.choice(NUMBERS)
            case _:
                del found[at:]
    return bytes(found)


def tried(parser: Parser, content: bytes, place: Path) -> str:
    """Read a changed file; return what is wrong with how that went, or nothing."""
    for name, whole in parser.files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if name == parser.victim else whole)
    began = time.process_time()
    try:
        parser.read(place)
    except (DeepcnnError, BadPictureError):
        pass
    except Exception as error:  # what is looked for
        return f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    return f"it took {seconds:.1f} s" if seconds > SLOW else ""


def main(arguments: list[str]) -> int:
    """Change and read files for so many seconds; say how many, and keep what failed."""
    options = program.parser("fuzz", __doc__)
    options.add_argument("--seconds", type=float, default=120, help="in all; default: 120")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", nargs="+", metavar="PARSER")
    options.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="for what fails")
    found = options.parse_args(arguments)
    chance = random.Random(found.seed)
    counts: Counter[str] = Counter()
    problems: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        all_ = parsers(Path(scratch))
        chosen = [each for each in all_ if found.only is None or each.name in found.only]
        end = time.monotonic() + found.seconds
        while time.monotonic() < end:
            for number, parser in enumerate(chosen):
                other = chance.choice(all_)
                content = parser.files[parser.victim]
                content = changed(content, other.files[other.victim], chance)
                place = Path(scratch) / f"try-{number}"
                problem = tried(parser, content, place)
                counts[parser.name] += 1
                if problem and (key := (parser.name, problem[:60])) not in problems:
                    found.keep.mkdir(exist_ok=True)
                    digest = hashlib.sha256(content).hexdigest()[:12]
                    (found.keep / f"{parser.name.replace(' ', '-')}-{digest}").write_bytes(content)
                    problems[key] = problem
                    print(f"{parser.name}, {digest}: {problem[:200]}")
    for name, count in counts.items():
        print(f"{name:<16}{count:>9,}")
    print(f"{counts.total():,} files, {len(problems):,} problems")
    return 1 if problems else 0
