"""Data sets elsewhere: TFRecord or Parquet shards behind a URL, read one by one through a cache.

`index.json` lies beside them. `deepcnn data convert --to tfrecord` writes it, and so does `deepcnn
data index` for existing shards:

    {"format": "tfrecord", "classes": ["airplane", …], "shape": [32, 32, 3],
     "splits": {"train": [{"file": "train-00000-of-00008.tfrecords", "examples": 6250,
                           "bytes": 19743750, "sha256": "…"}, …], "test": […]}}

So counts and shapes are known without reading any shard, and no shard is read before its length and
its digest are verified. For the formats "tfrecord of pictures" and "parquet" (encoded pictures),
`shape` holds the sides that most pictures have, as `pictures.choose_format` chooses them, and 1
channel if all are gray. A TFRecord that is compressed by gzip or zlib has `"compressed": true`: the
order of the examples depends on whether reading may start anywhere.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
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
from deepcnn.data.formats import parquet, tfrecord, tfrecord_pictures
from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.pictures import Pictures, decoded
from deepcnn.data.layouts import Layout
from deepcnn.data.shard_cache import Remote, ShardCache
from deepcnn.data.shards import Blocks, Shape, by
from deepcnn.data.splits import SPLITS, Opener, Split
from deepcnn.errors import DataError
from deepcnn.settings import DataSpec

INDEX_FILE = "index.json"
CACHE_FOLDER = "shards"
SUFFIX = ".tfrecords"
FORM, OF_PICTURES, OF_PARQUET = "tfrecord", "tfrecord of pictures", "parquet"
# What reads the pictures of a shard, and what the data are called.
PICTURES: dict[str, tuple[Callable[[Path], Pictures], str]] = {
    OF_PICTURES: (tfrecord_pictures.RecordPictures, tfrecord_pictures.NAME),
    OF_PARQUET: (parquet.ParquetPictures, parquet.NAME),
}
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

    if index.form in PICTURES and spec.skip_bad:
        raise DataError(
            f"{spec.data}: pictures elsewhere are not looked at beforehand, so none can be left "
            "out by --skip-bad. Write the set without the bad ones: deepcnn data convert"
        )
    height, width, channels = index.shape

    def opened(entries: tuple[Entry, ...]) -> tuple[RemoteShard, ...]:
        if index.form not in PICTURES:
            return tuple(RemoteShard(base, entry, index.shape, cache) for entry in entries)
        form = Format(*(spec.image_size or (height, width)), channels, spec.fit)
        reader, _ = PICTURES[index.form]
        return tuple(RemotePictures(base, entry, form, cache, reader) for entry in entries)

    splits: dict[Split, Opener] = {
        split: partial(opened, index.splits[split]) for split in SPLITS if split in index.splits
    }
    name = PICTURES[index.form][1] if index.form in PICTURES else tfrecord.NAME
    return Layout(Path(spec.data), f"{name} elsewhere", splits, index.classes, alike=True)


def describe(
    folder: Path,
    files: Mapping[Split, list[tuple[str, int]]],
    shape: Shape,
    classes: tuple[str, ...],
    form: str = FORM,
    compressed: Collection[str] = (),
) -> None:
    """Write the index of a folder of shards; `files`: name and examples of each, by split.

    `compressed`: the names of those that are.
    """
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, shards in files.items():
        splits[split] = []
        for name, examples in shards:
            with (folder / name).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                entry = {"file": name, "examples": examples, "bytes": file.tell()}
            also = {"compressed": True} if name in compressed else {}
            splits[split].append({**entry, "sha256": sha256, **also})
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
    compressed: bool = False


@dataclass(frozen=True)
class Index:
    """The content of an index."""

    classes: tuple[str, ...]
    shape: Shape
    splits: dict[Split, tuple[Entry, ...]]
    form: str


class RemoteShard:
    """A shard elsewhere: a `Shard` that is fetched into the cache when it is needed."""

    def __init__(self, base: str, entry: Entry, shape: Shape, cache: ShardCache) -> None:
        self.name = base + entry.file
        self.seekable = not entry.compressed
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
            self._check_start(shard.seekable)
            with closing(shard.blocks(start, stop, size)) as blocks:
                yield from blocks

    def _check_start(self, seekable: bool) -> None:
        if seekable != self.seekable:
            raise DataError(
                f"{self.name}: expected a file that is {'' if self.seekable else 'not '}plain, as "
                f"{INDEX_FILE} says, found the contrary. Write it anew: deepcnn data index FOLDER"
            )


class RemotePictures(RemoteShard):
    """A shard of encoded pictures elsewhere; each picture is decoded when it is read."""

    def __init__(
        self,
        base: str,
        entry: Entry,
        form: Format,
        cache: ShardCache,
        reader: Callable[[Path], Pictures],
    ) -> None:
        super().__init__(base, entry, (form.height, form.width, form.channels), cache)
        self._form = form
        self._reader = reader

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
            pictures = self._reader(path)
            if len(pictures) != self._examples:
                raise DataError(
                    f"{self.name}: expected {self._examples:,} pictures as {INDEX_FILE} says, "
                    f"found {len(pictures):,}. Write it anew: deepcnn data index FOLDER"
                )
            self._check_start(pictures.seekable)
            with closing(decoded(pictures, self._form, start, stop, size)) as blocks:
                yield from blocks


# Reading an index. These functions raise ValueError.


def _parsed(content: bytes, url: str) -> Index:
    try:
        values = _object(json.loads(content), "an object")
        form = values.get("format")
        if form not in (FORM, *PICTURES):
            raise ValueError(
                f"expected the format {', '.join(map(repr, (FORM, *PICTURES)))}, found {form!r:.50}"
            )
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
        if form in PICTURES and channels not in (1, 3):
            raise ValueError(f"shape: expected pictures of 1 or 3 channels, found {channels}")
        splits = _object(values.get("splits"), "splits by name")
        if not splits or not splits.keys() <= set(SPLITS):
            raise ValueError(f"splits: expected {', '.join(SPLITS)}, found {[*splits]!r:.80}")
        read = partial(_entry, form)
        entries = {split: tuple(map(read, _list(splits[split]))) for split in splits}
        examples = sum(entry.examples for each in entries.values() for entry in each)
        _number(examples, MAX_EXAMPLES, "examples of all shards")
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{url}: expected the list of shards that deepcnn data convert --to tfrecord writes "
            f"({error})"
        ) from error
    found: dict[Split, tuple[Entry, ...]] = {s: entries[s] for s in SPLITS if s in entries}
    return Index(tuple(classes), (height, width, channels), found, str(form))


def _entry(form: str, value: Any) -> Entry:
    values = _object(value, "an object for each shard")
    name, sha256 = values.get("file"), values.get("sha256")
    fits, kind = tfrecord.is_record_file, ".tfrecords"
    if form == OF_PARQUET:
        fits, kind = (lambda name: name.lower().endswith(parquet.ENDING)), parquet.ENDING
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not fits(name):
        raise ValueError(f"file: expected the name of a {kind} file, found {name!r:.100}")
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError(f"{name}: sha256: expected 64 hexadecimal digits, found {sha256!r:.80}")
    size = _number(values.get("bytes"), MAX_SHARD_BYTES, f"{name}: bytes")
    compressed = values.get("compressed", False)
    if not isinstance(compressed, bool):
        raise ValueError(f"{name}: compressed: expected true or false, found {compressed!r:.50}")
    most = MAX_EXAMPLES if compressed or form == OF_PARQUET else size
    examples = _number(values.get("examples"), most, f"{name}: examples")
    return Entry(name, examples, size, sha256, compressed)


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
