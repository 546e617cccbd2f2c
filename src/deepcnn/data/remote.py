"""Data sets elsewhere: TFRecord shards behind a URL, read one after another through a cache.

`index.json` lies beside them. `deepcnn data convert --to tfrecord` writes it, and so does `deepcnn
data index` for existing shards:

    {"format": "tfrecord", "classes": ["airplane", …], "shape": [32, 32, 3],
     "splits": {"train": [{"file": "train-00000-of-00008.tfrecords", "examples": 6250,
                           "bytes": 19743750, "sha256": "…"}, …], "test": […]}}

So counts and shapes are known without reading any shard, and no shard is read before its length and
its digest are verified. For the format "tfrecord of pictures" (encoded pictures), `shape` holds the
sides that most pictures have, as `pictures.choose_format` chooses them, and 1 channel if all are
gray.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from deepcnn import atomic
from deepcnn.data import web
from deepcnn.data.class_file import MAX_CLASSES
from deepcnn.data.fetch import default_data_dir
from deepcnn.data.formats import tfrecord, tfrecord_pictures
from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.pictures import decoded
from deepcnn.data.layouts import Layout
from deepcnn.data.shard_cache import Remote, ShardCache
from deepcnn.data.shards import Blocks, Shape, by
from deepcnn.data.splits import SPLITS, Opener, Split
from deepcnn.errors import DataError
from deepcnn.settings import DataSpec

INDEX_FILE = "index.json"
CACHE_FOLDER = "shards"
SUFFIX = ".tfrecords"
FORM, OF_PICTURES = "tfrecord", "tfrecord of pictures"
MAX_INDEX_BYTES = 1 << 24
MAX_SHARD_BYTES = 1 << 34
MAX_EXAMPLES = 10**9
_NAME = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(data: str) -> bool:
    """Tell whether the name of data is a URL of any kind."""
    return _URL.match(data) is not None


def find(spec: DataSpec) -> Layout:
    """Read the index of the folder at a URL; raises DataError if there is none that can be used."""
    web.check(spec.data)
    base = spec.data.rstrip("/") + "/"
    root = Path(spec.data_dir) if spec.data_dir is not None else default_data_dir()
    limit = int(spec.cache_gigabytes * 1e9)
    cache = ShardCache(root.expanduser() / CACHE_FOLDER, limit, SUFFIX)
    index = _parsed(web.read(base + INDEX_FILE, MAX_INDEX_BYTES), base + INDEX_FILE)

    if index.of_pictures and spec.skip_bad:
        raise DataError(
            f"{spec.data}: pictures elsewhere are not looked at beforehand, so none can be left "
            "out by --skip-bad. Write the set without the bad ones: deepcnn data convert"
        )
    height, width, channels = index.shape

    def opened(entries: tuple[Entry, ...]) -> tuple[RemoteShard, ...]:
        if not index.of_pictures:
            return tuple(RemoteShard(base, entry, index.shape, cache) for entry in entries)
        form = Format(*(spec.image_size or (height, width)), channels, spec.fit)
        return tuple(RemotePictures(base, entry, form, cache) for entry in entries)

    splits: dict[Split, Opener] = {
        split: partial(opened, index.splits[split]) for split in SPLITS if split in index.splits
    }
    form = tfrecord_pictures.NAME if index.of_pictures else tfrecord.NAME
    return Layout(Path(spec.data), f"{form} elsewhere", splits, index.classes, alike=True)


def describe(
    folder: Path,
    files: Mapping[Split, list[tuple[str, int]]],
    shape: Shape,
    classes: tuple[str, ...],
    form: str = FORM,
) -> None:
    """Write the index of a folder of shards; `files`: name and examples of each, by split."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, shards in files.items():
        splits[split] = []
        for name, examples in shards:
            with (folder / name).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                entry = {"file": name, "examples": examples, "bytes": file.tell()}
            splits[split].append({**entry, "sha256": sha256})
    content = {"format": form, "classes": classes, "shape": shape, "splits": splits}
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    atomic.write(folder / INDEX_FILE, text.encode())


@dataclass(frozen=True)
class Entry:
    """A shard as the index describes it."""

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """The content of an index."""

    classes: tuple[str, ...]
    shape: Shape
    splits: dict[Split, tuple[Entry, ...]]
    of_pictures: bool


class RemoteShard:
    """A shard elsewhere: a `Shard` that is fetched into the cache when it is needed."""

    seekable = True

    def __init__(self, base: str, entry: Entry, shape: Shape, cache: ShardCache) -> None:
        self.name = base + entry.file
        self.shape = shape
        self._remote = Remote(self.name, entry.bytes, entry.sha256)
        self._examples = entry.examples
        self._cache = cache

    def __len__(self) -> int:
        return self._examples

    def expect(self) -> None:
        """Begin to fetch it; see `shards.Awaited`."""
        self._cache.expect(self._remote)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`; see `Shard`."""
        with self._cache.using(self._remote) as path:
            shard = tfrecord.TFRecordShard(path)
            if (len(shard), shard.shape) != (self._examples, self.shape):
                raise DataError(
                    f"{self.name}: expected {self._examples:,} images of {by(self.shape)} as "
                    f"{INDEX_FILE} says, found {len(shard):,} of {by(shard.shape)}. Write the "
                    "folder anew: deepcnn data convert"
                )
            with closing(shard.blocks(start, stop, size)) as blocks:
                yield from blocks


class RemotePictures(RemoteShard):
    """A shard of encoded pictures elsewhere; each picture is decoded when it is read."""

    def __init__(self, base: str, entry: Entry, form: Format, cache: ShardCache) -> None:
        super().__init__(base, entry, (form.height, form.width, form.channels), cache)
        self._form = form

    def resized(self, height: int, width: int) -> RemotePictures:
        """Return the same pictures brought to another size."""
        other = copy.copy(self)
        other._form = dataclasses.replace(self._form, height=height, width=width)
        other.shape = height, width, self._form.channels
        return other

    @override
    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        """Yield the examples `start` to `stop`; see `Shard`."""
        with self._cache.using(self._remote) as path:
            pictures = tfrecord_pictures.RecordPictures(path)
            if len(pictures) != self._examples:
                raise DataError(
                    f"{self.name}: expected {self._examples:,} pictures as {INDEX_FILE} says, "
                    f"found {len(pictures):,}. Write it anew: deepcnn data index FOLDER"
                )
            with closing(decoded(pictures, self._form, start, stop, size)) as blocks:
                yield from blocks


# Reading an index. These functions raise ValueError.


def _parsed(content: bytes, url: str) -> Index:
    try:
        values = _object(json.loads(content), "an object")
        if values.get("format") not in (FORM, OF_PICTURES):
            raise ValueError(
                f"expected the format {FORM!r} or {OF_PICTURES!r}, found "
                f"{values.get('format')!r:.50}"
            )
        of_pictures = values["format"] == OF_PICTURES
        classes = values.get("classes")
        if not (
            isinstance(classes, list)
            and 0 < len(classes) <= MAX_CLASSES
            and all(isinstance(name, str) for name in classes)
            and len(set(classes)) == len(classes)
        ):
            raise ValueError("classes: expected a list of names that differ")
        "".join(classes).encode()  # no half of a surrogate pair, which cannot be written
        shape = values.get("shape")
        if not isinstance(shape, list) or len(shape) != 3:
            raise ValueError(f"shape: expected height, width and channels, found {shape!r:.50}")
        limits = (tfrecord.MAX_SIDE, tfrecord.MAX_SIDE, tfrecord.MAX_CHANNELS)
        height, width, channels = (
            _number(value, most, "shape") for value, most in zip(shape, limits, strict=True)
        )
        if height * width * channels > tfrecord.MAX_IMAGE_BYTES:
            raise ValueError(f"shape: expected smaller images, found {shape}")
        if of_pictures and channels not in (1, 3):
            raise ValueError(f"shape: expected pictures of 1 or 3 channels, found {channels}")
        splits = _object(values.get("splits"), "splits by name")
        if not splits or not splits.keys() <= set(SPLITS):
            raise ValueError(f"splits: expected {', '.join(SPLITS)}, found {[*splits]!r:.80}")
        entries = {split: tuple(map(_entry, _list(splits[split]))) for split in splits}
        examples = sum(entry.examples for each in entries.values() for entry in each)
        _number(examples, MAX_EXAMPLES, "examples of all shards")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{url}: expected the list of shards that deepcnn data convert --to tfrecord writes "
            f"({error})"
        ) from error
    found: dict[Split, tuple[Entry, ...]] = {s: entries[s] for s in SPLITS if s in entries}
    return Index(tuple(classes), (height, width, channels), found, of_pictures)


def is_plain(name: str) -> bool:
    """Tell by its name whether a file is an uncompressed TFRecord file."""
    return tfrecord.is_record_file(name) and not name.endswith((".gz", ".zlib"))


def _entry(value: Any) -> Entry:
    values = _object(value, "an object for each shard")
    name, sha256 = values.get("file"), values.get("sha256")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not is_plain(name):
        raise ValueError(f"file: expected the name of a .tfrecords file, found {name!r:.100}")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{name}: sha256: expected 64 hexadecimal digits, found {sha256!r:.80}")
    size = _number(values.get("bytes"), MAX_SHARD_BYTES, f"{name}: bytes")
    examples = _number(values.get("examples"), size, f"{name}: examples")
    return Entry(name, examples, size, sha256)


def _number(value: Any, most: int, what: str) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"{what}: expected a whole number from 1 to {most:,}, found {value!r:.50}")
    return value


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {what}, found {type(value).__name__}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of shards for each split, at least one")
    return value
