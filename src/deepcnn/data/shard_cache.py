"""A folder of shards from elsewhere: bounded, and verified.

A shard's file is named by its SHA-256, so nothing that a server says becomes a path. A file gets
its name only when it is whole and its digest is right. The digest of a file that was there before
is checked once before its first use. New shards replace those that were not used for longest; a
shard that is being read stays. Locks (flock) on the files tell which are being read, so several
trainings can share the folder.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from deepcnn import atomic
from deepcnn.data import web
from deepcnn.errors import DataError, storing

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

AT_ONCE = 4  # downloads
TRIES = 5  # to have a shard that others' shards drive out before it is read


@dataclass(frozen=True)
class Remote:
    """A file elsewhere: its URL, its bytes, and their SHA-256 in hexadecimal digits."""

    url: str
    size: int
    sha256: str


class _NoRoomError(Exception):
    """Fetching ahead would remove a shard that is needed sooner."""


class ShardCache:
    """The shards in `folder`: at most `limit` bytes together, including those on their way."""

    def __init__(self, folder: Path, limit: int, suffix: str) -> None:
        self._folder, self._limit, self._suffix = folder, limit, suffix
        self._lock = threading.Lock()
        self._downloads = threading.Semaphore(AT_ONCE)
        self._coming: dict[str, Future[None]] = {}
        self._expected: set[str] = set()
        self._verified: dict[str, int] = {}  # by SHA-256: the inode that was digested

    @contextmanager
    def using(self, remote: Remote) -> Iterator[Path]:
        """Give the path of a shard, which stays while the context lasts; fetch it if needed.

        Raises DataError if it cannot be fetched, and StorageError if it cannot be written.
        """
        with self._held(remote):
            self._expected.discard(remote.sha256)
            yield self._path(remote)

    def expect(self, remote: Remote) -> None:
        """Begin to fetch a shard that will be read soon, if there is room; return at once."""
        self._expected.add(remote.sha256)
        self._bring(remote, ahead=True)

    def _path(self, remote: Remote) -> Path:
        return self._folder / f"{remote.sha256}{self._suffix}"

    def _held(self, remote: Remote) -> BinaryIO:
        for _ in range(TRIES):
            with suppress(_NoRoomError):  # of one that was to come ahead; now it is needed
                self._bring(remote, ahead=False).result()
            if (file := _hold(self._path(remote))) is not None:
                return file
        raise DataError(
            f"{remote.url}: other shards drive it out of {self._folder} before it is read. Make "
            "the cache larger: --cache-gigabytes"
        )

    def _bring(self, remote: Remote, *, ahead: bool) -> Future[None]:
        """Return a future that is done when a shard is there. One thread fetches it for all."""
        with self._lock:
            future = self._coming.get(remote.sha256)
            if future is None:
                future = self._coming[remote.sha256] = Future()
                arguments = (remote, ahead, future)
                threading.Thread(target=self._fill, args=arguments, daemon=True).start()
            return future

    def _fill(self, remote: Remote, ahead: bool, future: Future[None]) -> None:
        error: BaseException | None = None
        try:
            with self._downloads:
                while not self._is_whole(remote):
                    self._fetch(remote, ahead=ahead)
        except BaseException as caught:  # it is raised where the shard is wanted
            error = caught
        with self._lock:
            del self._coming[remote.sha256]
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def _is_whole(self, remote: Remote) -> bool:
        """Tell whether a shard is there and whole; a damaged file is removed."""
        path = self._path(remote)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size == remote.size:
                    if self._verified.get(remote.sha256) == status.st_ino:
                        return True
                    if hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256:
                        self._verified[remote.sha256] = status.st_ino
                        return True
            path.unlink(missing_ok=True)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        return False

    def _fetch(self, remote: Remote, *, ahead: bool) -> None:
        path = self._path(remote)
        with ExitStack() as stack:
            with storing(path):
                file = self._begun(remote, path, stack, ahead=ahead)
            if file is None:
                return
            web.download(remote.url, file, size=remote.size, sha256=remote.sha256)
            inode = os.fstat(file.fileno()).st_ino
            with storing(path):
                file.flush()
                os.fsync(file.fileno())  # before the lock is taken, for which others wait
                with self._changing():  # a name that changes meanwhile would be counted wrongly
                    stack.close()
        self._verified[remote.sha256] = inode

    def _begun(
        self, remote: Remote, path: Path, stack: ExitStack, *, ahead: bool
    ) -> BinaryIO | None:
        """Return a new file, of full size from the start, so that others see the room it takes.

        Returns None if another process has fetched the shard meanwhile.
        """
        atomic.make_directory(self._folder)
        while True:
            with self._changing():
                atomic.remove_unfinished(self._folder)
                if path.exists():
                    return None
                found = 1 if self._others_fetch(path.name) else self._make_room(remote.size, ahead)
                if found == 0:
                    file = stack.enter_context(atomic.writing(path))
                    file.truncate(remote.size)
                    return file
            if ahead:
                raise _NoRoomError
            if found < 0:
                raise DataError(
                    f"{self._folder}: expected room for {remote.size:,} bytes of {remote.url}, "
                    f"beside the shards that are read at the same time, found a limit of "
                    f"{self._limit:,}. Allow more: --cache-gigabytes; or write smaller shards, or "
                    "read fewer at once: --readers"
                )
            time.sleep(0.05)

    def _others_fetch(self, name: str) -> bool:
        return any(atomic.is_unfinished(each.name, name) for each in self._folder.iterdir())

    def _changing(self) -> FileLock:
        return FileLock(self._folder / ".lock")

    def _make_room(self, size: int, ahead: bool) -> int:
        """Remove what was not used for longest, as far as needed; return 0 if there is room then.

        Otherwise return the number of files on their way, which may be removed soon, or -1 if there
        are none.
        """
        files = []
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):  # whoever failed to fetch it has just removed it
                if entry.name != ".lock" and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime_ns, entry.name, status.st_size))
        total = sum(each for _, _, each in files)
        coming = 0
        for _, name, each in sorted(files):
            if atomic.is_unfinished(name):
                coming += 1
            elif total + size > self._limit and not (
                ahead and name.removesuffix(self._suffix) in self._expected
            ):
                total -= each if _remove_unless_held(self._folder / name) else 0
        if total + size <= self._limit:
            return 0
        return coming or -1


def _hold(path: Path) -> BinaryIO | None:
    """Open a file, lock it against removal, and mark it as just used; None if it is gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks: an open file can be read anyway
                fcntl.flock(file, fcntl.LOCK_SH)
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            with suppress(PermissionError):  # another's file
                os.utime(path)
            return file
    except FileNotFoundError:
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _remove_unless_held(path: Path) -> bool:
    try:
        if fcntl is None:
            path.unlink()
            return True
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
    except FileNotFoundError:
        return True
    except OSError:
        return False
