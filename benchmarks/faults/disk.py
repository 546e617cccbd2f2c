"""What a disk may hold after a power cut, by the strictest reading of POSIX.

Only fsync promises anything. Of a file it brings the content to the disk, not its name; of a folder
the names in it, not that of the folder. What was done since may have arrived or not: each creation,
rename and removal by itself, in any order; of what was written to a file nothing, a part, all, or
zeros in its place. One thing is assumed: a rename within a folder happens as a whole.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults.calls import Call

Tree = dict[str, bytes | None]  # by path: what a file holds; None: a folder


@dataclass(eq=False)
class File:
    """A file: what was written, and what of it is on the disk."""

    content: bytes = b""
    durable: bytes = b""

    def may_hold(self) -> list[bytes]:
        """Return what may be found after a power cut."""
        new, old = self.content, self.durable
        if new == old:
            return [new]
        kept = next(
            (i for i, (a, b) in enumerate(zip(new, old, strict=False)) if a != b),
            min(len(new), len(old)),
        )
        half = kept + (len(new) - kept) // 2
        zeros = new[:kept] + bytes(len(new) - kept)
        hole = new[:kept] + bytes(half - kept) + new[half:]
        return list(dict.fromkeys([old, new, new[:half], zeros, hole]))


@dataclass(eq=False)
class Folder:
    """A folder: its names now and on the disk, and what was done since, change by change."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, names: dict[str, File | Folder | None]) -> None:
        """Give names, or take them (None)."""
        self.changes.append(names)
        _apply(self.names, names)


class Disk:
    """A folder on a disk, as calls change it; at first all that is there is safe."""

    def __init__(self, root: Path) -> None:
        self._prefix = f"{os.path.realpath(root)}/"
        self.root = _read(root)

    def do(self, call: Call) -> None:
        """Do what a call does."""
        folder, name = self._find(call.path)
        if call.kind == "mkdir":
            folder.change({name: Folder()})
        elif call.kind == "create":
            folder.change({name: File()})
        elif call.kind in ("unlink", "rmdir"):
            folder.change({name: None})
        elif call.kind == "rename":
            target, new = self._find(call.to)
            if target is not folder:
                raise ValueError(f"a rename to another folder may be torn: {call.path}, {call.to}")
            folder.change({name: None, new: folder.names[name]})
        elif call.kind == "fsync":
            self._flush(folder.names[name] if name else self.root)
        else:
            found = folder.names[name]
            assert isinstance(found, File)
            end = found.content[call.at + len(call.content) :] if call.kind == "write" else b""
            found.content = found.content[: call.at].ljust(call.at, b"\0") + call.content + end

    def after_a_cut(self, most: int, chance: random.Random) -> Iterator[Tree]:
        """Yield what may be found after a power cut now; of more than `most` so many at random."""
        folders, files = _all(self.root)
        choices: list[list[object]] = [[False, True] for f in folders for _ in f.changes]
        choices += [[*file.may_hold()] for file in files]
        count = 1
        for each in choices:
            count *= len(each)
        every = itertools.product(*choices)
        some = ([chance.choice(each) for each in choices] for _ in range(most))
        for chosen in every if count <= most else some:
            rest = iter(chosen)
            kept = {f: [c for c in f.changes if next(rest)] for f in folders}
            held = {file: next(rest) for file in files}
            yield _found(self.root, kept, held)  # type: ignore[arg-type]

    def _find(self, path: str) -> tuple[Folder, str]:
        """Return the folder of what a path names, and its name there; of the root an empty one."""
        if f"{path}/" == self._prefix:
            return self.root, ""
        folder = self.root
        *parents, name = path.removeprefix(self._prefix).split("/")
        for parent in parents:
            inner = folder.names[parent]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    def _flush(self, found: File | Folder) -> None:
        if isinstance(found, File):
            found.durable = found.content
        else:
            found.durable, found.changes = dict(found.names), []


def write(tree: Tree, root: Path) -> None:
    """Make a folder that holds a tree."""
    root.mkdir(parents=True)
    for name, content in sorted(tree.items()):
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content)


def _read(path: Path) -> Folder:
    found = Folder()
    for entry in path.iterdir():
        content = b"" if entry.is_dir() else entry.read_bytes()
        found.names[entry.name] = _read(entry) if entry.is_dir() else File(content, content)
    found.durable = dict(found.names)
    return found


def _all(root: Folder) -> tuple[list[Folder], list[File]]:
    """Return all that may be found: also what has lost its name, for that may be there again."""
    folders, files, seen = [], [], set()
    todo: list[File | Folder | None] = [root]
    while todo:
        found = todo.pop()
        if found is None or found in seen:
            continue
        seen.add(found)
        if isinstance(found, File):
            files.append(found)
        else:
            folders.append(found)
            todo += [*found.durable.values(), *(x for c in found.changes for x in c.values())]
    return folders, files


def _found(
    folder: Folder,
    kept: dict[Folder, list[dict[str, File | Folder | None]]],
    held: dict[File, bytes],
) -> Tree:
    names = dict(folder.durable)
    for change in kept[folder]:
        _apply(names, change)
    tree: Tree = {}
    for name, inner in names.items():
        if isinstance(inner, File):
            tree[name] = held[inner]
        else:
            tree[name] = None
            tree |= {f"{name}/{below}": x for below, x in _found(inner, kept, held).items()}
    return tree


def _apply(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, found in change.items():
        if found is None:
            names.pop(name, None)
        else:
            names[name] = found
