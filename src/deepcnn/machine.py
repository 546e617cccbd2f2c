"""The memory (of the machine or its container) and the processors that this process may use.

Limits of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max) and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (memory.limit_in_bytes).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

LARGEST_SHARE = 0.8  # of the memory, for what is made at once


def memory(*, cgroups: Path = Path("/sys/fs/cgroup"), own: Path | None = None) -> int | None:
    """Return the bytes of memory that this process may use, or None if this is not known.

    `cgroups`: where control groups are mounted. `own`: the file that names this process's group.
    The smallest limit counts, among all groups from this one up to the root.
    """
    own = Path("/proc/self/cgroup") if own is None else own
    found = [*_limits(cgroups, own)]
    if hasattr(os, "sysconf"):  # not on Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(found, default=None)


def _limits(cgroups: Path, own: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups; "max" if there is no limit."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if not controllers:
            root, file = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # Inside a container the name may be one that only the host knows: then the root's counts.
        inside = PurePosixPath(name.strip("/"))
        for group in (inside, *inside.parents):
            if ".." not in group.parts:
                yield from _limit(root / group / file)


def _limit(path: Path) -> Iterator[int]:
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return
    if text.isdecimal() and int(text) > 0:
        yield int(text)


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
