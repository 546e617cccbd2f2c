"""Problems of files and folders: what is odd, is left out or changed when read, or leaks."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.enough import check_counts
from deepcnn.data.formats.listings import SUFFIXES
from deepcnn.data.splits import Split
from deepcnn.doctor.findings import Problem, counted
from deepcnn.doctor.look import Looked, OfFile, Seen
from deepcnn.shown import shown

# Kinds, worst first.
KINDS = (
    *("unreadable", "one class", "small split", "class missing", "name leak", "like-named classes"),
    *(
        "small class",
        "alike",
        "empty",
        "transparent",
        "ignored",
        "odd size",
        "odd aspect",
        "cropped",
    ),
    *("gray among colour", "colour among gray", "turned by EXIF", "unbalanced", "system files"),
)
SYSTEM = ("__MACOSX", ".ipynb_checkpoints", "Thumbs.db", ".DS_Store", "desktop.ini")
# What may well be a picture, but is none of the endings that are read.
MAYBE_PICTURES = (".heic", ".heif", ".avif", ".jp2", ".svg", ".psd", ".raw", ".cr2", "")
ODD = 4  # times as large, small or long as is usual
CUT, CLEAR = 0.1, 0.01  # shares of a picture's pixels from which on it is told
MOST = 50  # files of one kind that are told one by one
FRAME = re.compile(r"^(.*?)[ _.-]*[0-9]{1,9}$")
MANY_FRAMES = 3  # files of one stem in a split, from which on the stem names what they are of


def find(seen: Seen) -> list[Problem]:
    """Return all problems except duplicates and labels, worst first."""
    found = [Problem("unreadable", path, why) for path, why in sorted(seen.bad.items())]
    for split, looked in seen.splits.items():
        found += _of_images(split, looked)
    found += _of_folders(Path(seen.dataset.spec.data).expanduser(), seen)
    found += _of_classes(seen.dataset.classes)
    found += _name_leaks(seen.splits)
    counts: dict[str, list[int]] = {
        split: np.bincount(looked.labels, minlength=len(seen.dataset.classes)).tolist()
        for split, looked in seen.splits.items()
    }
    found += [
        Problem(kind, None, detail) for kind, detail in check_counts(seen.dataset.classes, counts)
    ]
    return sorted(found, key=lambda problem: KINDS.index(problem.kind))


def _limited(kind: str, told: Iterable[tuple[str | None, str]]) -> list[Problem]:
    """Return problems of a kind: the first MOST one by one, then how many more there are."""
    told = list(told)
    found = [Problem(kind, path, detail) for path, detail in told[:MOST]]
    if len(told) > MOST:
        more = len(told) - MOST
        found.append(Problem(kind, None, f"{more:,} more of this kind.", more))
    return found


def _of_images(split: Split, looked: Looked) -> list[Problem]:
    paths, files = looked.paths, looked.files

    def name(index: int) -> str | None:
        return paths[index] if paths is not None else None

    def which(index: int) -> str:
        return "" if paths is not None else f"{split} {index}: "

    found = _mostly_empty(split, looked.empty) + _limited(
        "empty",
        ((name(i), which(i) + "Almost all pixels are equal.") for i in _where(looked.empty)),
    )
    gray = looked.gray & ~looked.empty
    if gray.mean() < 0.5:  # else colour is the exception
        text = "It has no colour, as most others have."
        found += _limited("gray among colour", ((name(i), which(i) + text) for i in _where(gray)))
    else:
        text = "It has colours, which most others lack."
        found += _limited(
            "colour among gray",
            ((name(i), which(i) + text) for i in _where(~looked.gray & ~looked.empty)),
        )
    return found + (_of_files(looked, files) if files else [])


def _mostly_empty(split: Split, empty: NDArray[np.bool_]) -> list[Problem]:
    """Return a remark for sets in which half of all images have almost a single colour."""
    count = int(empty.sum())
    if 2 * count < len(empty):
        return []
    text = (
        f"{count:,} of {len(empty):,} {split} images are almost of one colour. Look at some: if "
        "they are black, they may have been saved with values of 0 to 1 and not of 0 to 255."
    )
    return [Problem("empty", None, text, 0)]


def _where(flags: NDArray[np.bool_]) -> list[int]:
    found: list[int] = np.flatnonzero(flags).tolist()
    return found


def _of_files(looked: Looked, files: Sequence[OfFile]) -> list[Problem]:
    paths = looked.paths or ()
    height, width, _ = looked.source.shape
    areas = np.array([file.header.height * file.header.width for file in files])
    aspects = np.log([file.header.width / file.header.height for file in files])
    middle, usual = np.median(areas), np.median(aspects)
    odd = [i for i, a in enumerate(areas) if a > ODD**2 * middle or a * ODD**2 < middle]
    long = [i for i, a in enumerate(aspects) if abs(a - usual) > np.log(ODD) / 2]
    cut = [(_cut(file, height, width), i) for i, file in enumerate(files)]
    clear = [(file.transparent, i) for i, file in enumerate(files)]

    def size(i: int) -> str:
        return f"{files[i].header.width}×{files[i].header.height}"

    shape = f"{width}×{height}"
    return [
        *_limited("odd size", ((paths[i], f"It is {size(i)}, unlike the others.") for i in odd)),
        *_limited(
            "odd aspect", ((paths[i], f"It is {size(i)}, longer than the others.") for i in long)
        ),
        *_limited(
            "cropped",
            (
                (paths[i], f"{100 * s:.0f} % of its {size(i)} pixels are cut away for {shape}.")
                for s, i in sorted(cut, reverse=True)
                if s >= CUT
            ),
        ),
        *_limited(
            "transparent",
            (
                (paths[i], f"{100 * s:.0f} % of its pixels are transparent, and become black.")
                for s, i in sorted(clear, reverse=True)
                if s >= CLEAR
            ),
        ),
        *_limited(
            "turned by EXIF",
            (
                (paths[i], "It is stored turned, and is read upright, as EXIF says.")
                for i, file in enumerate(files)
                if file.turned
            ),
        ),
    ]


def _cut(file: OfFile, height: int, width: int) -> float:
    """Return the share of a picture that is cut away to give it another aspect."""
    ratio = (file.header.width / file.header.height) / (width / height)
    return 1 - min(ratio, 1 / ratio)


def _of_folders(root: Path, seen: Seen) -> list[Problem]:
    """Return files among pictures that are not pictures; other formats have no such folders."""
    if not root.is_dir() or all(looked.paths is None for looked in seen.splits.values()):
        return []
    system: Counter[str] = Counter()
    ignored: dict[str, list[str]] = defaultdict(list)
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            if name in SYSTEM:
                system[name] += 1
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SYSTEM)
        if Path(folder) == root:
            continue  # a README or a table beside the classes is none of them
        for name in sorted(files):
            ending = Path(name).suffix.lower()
            if not name.startswith(".") and name not in SYSTEM and ending not in SUFFIXES:
                ignored[ending].append(f"{folder}/{name}")
    found = []
    for ending, paths in sorted(ignored.items(), key=lambda i: (i[0] not in MAYBE_PICTURES, i)):
        what = f"with the ending {shown(ending)}" if ending else "without an ending"
        they, them = ("It", "it") if len(paths) == 1 else ("They", "them")
        maybe = "a picture" if len(paths) == 1 else "pictures"
        advice = f" {they} may be {maybe}: convert {them}." if ending in MAYBE_PICTURES else ""
        are = "is" if len(paths) == 1 else "are"
        such = "" if len(paths) == 1 else ", such as this one"
        text = f"{counted(len(paths), 'file')} {what} {are} not read{such}.{advice}"
        found.append(Problem("ignored", paths[0], text))
    for name, count in system.items():
        were, them = ("was", "it") if count == 1 else ("were", "them")
        text = f"{count:,} of {name} {were} passed over; other programs left {them}."
        found.append(Problem("system files", str(root / name), text))
    return found


def _of_classes(classes: Sequence[str]) -> list[Problem]:
    """Return classes whose names differ only by case, accents or normalization."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        plain = unicodedata.normalize("NFKD", name)
        alike["".join(c for c in plain if not unicodedata.combining(c)).casefold()].append(name)
    return [
        Problem(
            "like-named classes",
            None,
            f"The classes {', '.join(map(ascii, names))} differ by case or accents alone.",
        )
        for names in alike.values()
        if len(names) > 1
    ]


def _name_leaks(splits: dict[Split, Looked]) -> list[Problem]:
    """Return stems of names with running numbers that are in the test set and in another split."""
    stems: dict[str, dict[Split, list[str]]] = defaultdict(lambda: defaultdict(list))
    classes = {name for looked in splits.values() for name in looked.source.classes}
    for split, looked in splits.items():
        for path in looked.paths or ():
            match = FRAME.match(Path(path).stem)
            if match and match[1] and match[1] not in classes:
                stems[match[1]][split].append(path)
    there = [
        (stem, by_split)
        for stem, by_split in stems.items()
        if "test" in by_split and len(by_split) > 1
        if min(map(len, by_split.values())) >= MANY_FRAMES
    ]
    if len(stems) < 2:  # one stem for all says nothing
        return []
    there.sort(key=lambda item: -len(item[1]["test"]))
    return _limited(
        "name leak",
        (
            (
                by_split["test"][0],
                f"{shown(stem)} and a number: {len(by_split['test']):,} test files, and "
                + ", ".join(f"{len(p):,} of {s}" for s, p in by_split.items() if s != "test")
                + ". If they are frames of one video or pictures of one person, the test leaks.",
            )
            for stem, by_split in there
        ),
    )
