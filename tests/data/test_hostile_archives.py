"""Archives that a user names, and that want time or memory: one error, and neither."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from deepcnn.data import download
from deepcnn.errors import DataError

GB, MB = 2**30, 2**20


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def gzipped(parts: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(map(packer.compress, parts)) + packer.flush()


def beginning_with(first: bytes, *, zeros: int = 16 * MB) -> bytes:
    """Return an archive that is cut where nobody should come."""
    return gzipped([first, *[bytes(MB)] * (zeros // MB)])


HEADER = "expected headers of at most 1,048,576 bytes, found one of 1,073,741,824"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name of 1 GB": (
        lambda: beginning_with(header("././@LongLink", GB, tarfile.GNUTYPE_LONGNAME)),
        HEADER,
    ),
    "a link's name of 1 GB": (
        lambda: beginning_with(header("././@LongLink", GB, tarfile.GNUTYPE_LONGLINK)),
        HEADER,
    ),
    "a pax header of 1 GB": (lambda: beginning_with(header("x", GB, tarfile.XHDTYPE)), HEADER),
    "a common pax header of 1 GB": (
        lambda: beginning_with(header("x", GB, tarfile.XGLTYPE)),
        HEADER,
    ),
    "1 GB before what is wanted": (
        lambda: beginning_with(header("other", GB)),
        "expected at most 268,435,476 bytes before the end of the data set's files, found more",
    ),
    "xz, whose head says how much memory it takes": (
        lambda: b"\xfd7zXZ\0" + bytes(99),
        "expected a tar archive that is plain or compressed by gzip or bzip2, found xz",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_takes_no_more_memory_than_what_is_looked_for(name: str, tmp_path: Path) -> None:
    make, message = HOSTILE[name]
    path = tmp_path / "a.tar.gz"
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            download.read_members(path, {"wanted": 10})
        assert tracemalloc.get_traced_memory()[1] < 4 * MB
    finally:
        tracemalloc.stop()


def test_a_pipe_and_a_device_are_no_archives(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="expected a tar archive or a folder, found something"):
            download.read_members(path, {"wanted": 10})


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_members_are_read_from_any_usual_archive(
    pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    content, long = bytes(range(256)) * 8000, "é" * 300
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, size in (("other", 999), (long, len(content)), ("wanted", 2)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(content[:size]))
    path = tmp_path / "a.tar"
    path.write_bytes(pack(file.getvalue()))
    found = download.read_members(path, {long: len(content), "wanted": 2, "missing": 1})
    assert found == {long: content, "wanted": content[:2]}
