"""Parquet files of pictures, as Hugging Face's `datasets` writes image sets.

Format of the columns (https://huggingface.co/docs/datasets/image_dataset): `image` is a struct of
`bytes`, a picture's file, and `path`; `label` is an integer. The schema's metadata `huggingface`
names the features and the classes. Read by pyarrow, the extra `parquet`, a few rows at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deepcnn.data.formats import preparing
from deepcnn.data.formats.parts import InParts, OneByOne, gathered
from deepcnn.data.splits import Opener, Split, group_files
from deepcnn.errors import DataError
from deepcnn.events import Listener, Noted
from deepcnn.settings import DataSpec

NAME = "Parquet"
ENDING = ".parquet"
FOLDER = "data"  # in which a repository of Hugging Face has them
IMAGES = "image", "img", "picture"  # in the order in which they are looked for
LABELS = "label", "fine_label", "labels", "class"
ROWS = 32  # that pyarrow unpacks at a time
MAX_GROUP_BYTES = 1 << 30  # of a row group, unpacked
MAX_METADATA_BYTES = 1 << 24
MAX_STRING_BYTES, MAX_LIST = 1 << 26, 1 << 20  # in the footer


@dataclass(frozen=True)
class Columns:
    """The columns of the pictures and the labels, and the names of the classes, if known.

    `nested`: a picture is a struct, not just its bytes. `others`: further labels, which are left
    out.
    """

    image: str
    label: str
    nested: bool
    classes: tuple[str, ...] | None
    others: tuple[str, ...]


class ParquetPictures:
    """The pictures of a file; see `pictures.Pictures`. Making it reads the footer."""

    seekable = True  # by row groups

    def __init__(self, path: Path) -> None:
        self._path = path
        with _opened(path) as file:
            self._columns = _columns(path, file.schema_arrow)
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            self._rows = [group.num_rows for group in groups]
            largest = max((group.total_byte_size for group in groups), default=0)
        if largest > MAX_GROUP_BYTES:
            raise DataError(
                f"{path}: expected row groups of at most {MAX_GROUP_BYTES:,} bytes, found one of "
                f"{largest:,}. Write it again with smaller row groups."
            )
        if not sum(self._rows):
            raise DataError(f"{path}: expected at least one row, found none.")

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return str(self._path)

    def __len__(self) -> int:
        return sum(self._rows)

    def parts(self, start: int, stop: int, size: int) -> InParts:
        """Yield the pictures `start` to `stop`; see `Pictures`."""
        return gathered(self._read(start, stop), size)

    def _read(self, start: int, stop: int) -> OneByOne:
        with _opened(self._path) as file:
            begin = 0
            for group, rows in enumerate(self._rows):
                if begin < stop and start < begin + rows:
                    yield from self._group(file, group, begin, start, stop)
                begin += rows

    def _group(self, file: Any, group: int, begin: int, start: int, stop: int) -> OneByOne:
        """Yield the pictures `start` to `stop` of a row group that begins with picture `begin`."""
        image, label = self._columns.image, self._columns.label
        wanted = [f"{image}.bytes" if self._columns.nested else image, label]
        row = begin
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=wanted):
            images = batch.column(image)
            images = images.field("bytes") if self._columns.nested else images
            for picture, number in zip(images, batch.column(label), strict=True):
                if start <= row < stop:
                    yield self._picture(row, picture.as_py(), number.as_py())
                row += 1
            if row >= stop:
                return

    def _picture(self, row: int, picture: Any, label: Any) -> tuple[str, bytes, int]:
        """Return the place of a row, its picture and its label, checked."""
        where = f"{self._path}, row {row:,}"
        if not isinstance(picture, bytes):
            raise DataError(
                f"{where}: expected the bytes of a picture in {self._columns.image!r}, found none. "
                "Where only a path is there, load the set and write it with its pictures."
            )
        if not isinstance(label, int) or not 0 <= label < 2**63:
            raise DataError(
                f"{where}: expected a label of at least 0 in {self._columns.label!r}, found "
                f"{label!r}. Sets without labels for some pictures cannot be trained on."
            )
        return where, picture, label


def recognize(
    folder: Path, files: list[str], spec: DataSpec, emit: Listener
) -> tuple[dict[Split, Opener], tuple[str, ...] | None] | None:
    """Return the splits and the classes of files by these names, or of those in `data/`; or None.

    The footer of the first file is read. Raises DataError if pyarrow is missing.
    """
    names = [name for name in files if name.lower().endswith(ENDING)]
    if not names and (folder / FOLDER).is_dir():
        folder = folder / FOLDER
        names = [e.name for e in folder.iterdir() if e.name.lower().endswith(ENDING)]
    if not names:
        return None
    groups = group_files(folder, names)
    first = next(iter(groups.values()))[0]
    with _opened(first) as file:
        columns = _columns(first, file.schema_arrow)
    if columns.others:
        emit(
            Noted(
                f"{first}: the labels are those of {columns.label!r}; passed over "
                f"{', '.join(map(repr, columns.others))}"
            )
        )
    parts = {split: partial(_all, paths) for split, paths in groups.items()}
    return preparing.openers(parts, spec, emit), columns.classes


def _all(paths: Iterable[Path]) -> tuple[ParquetPictures, ...]:
    return tuple(map(ParquetPictures, paths))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file with pyarrow; its errors, also later ones, become DataError."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet files needs pyarrow. Run pip install 'deepcnn[parquet]'."
        ) from error
    try:
        with (
            path.open("rb") as raw,
            ParquetFile(
                raw,
                buffer_size=1 << 20,
                pre_buffer=False,
                thrift_string_size_limit=MAX_STRING_BYTES,
                thrift_container_size_limit=MAX_LIST,
            ) as file,
        ):
            yield file
    except DataError:
        raise
    except OSError as error:
        if error.strerror:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        raise _damaged(path, error) from error
    except (pyarrow.ArrowException, ValueError, IndexError, MemoryError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).partition("\n")[0][:200]
    return DataError(
        f"{path}: expected a whole Parquet file, found one that pyarrow cannot read ({reason}). "
        "The file is damaged; fetch it again."
    )


def _columns(path: Path, schema: Any) -> Columns:
    """Find the columns of a schema; raises DataError, naming those that are there."""
    import pyarrow

    features = _features(schema.metadata or {})

    def first(names: Iterable[str], fits: Callable[[Any], bool]) -> str | None:
        known = [name for name in names if name in schema.names]
        return next((name for name in known if fits(schema.field(name).type)), None)

    def nested(kind: Any) -> bool:
        return bool(pyarrow.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0

    def picture(kind: Any) -> bool:
        binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
        return bool(binary) or nested(kind)

    of_classes = [name for name, each in features.items() if each.get("_type") == "ClassLabel"]
    of_images = [name for name, each in features.items() if each.get("_type") == "Image"]
    image = first((*of_images, *IMAGES), picture)
    labels = (*(name for name in LABELS if name in of_classes), *of_classes, *LABELS)
    label = first(labels, lambda kind: bool(pyarrow.types.is_integer(kind)))
    if image is None or label is None:
        found = ", ".join(f"{field.name} ({field.type})"[:60] for field in list(schema)[:12])
        raise DataError(
            f"{path}: expected a column of pictures, such as {IMAGES[0]} (struct<bytes, path>), "
            f"and one of labels, such as {LABELS[0]} (int64), found {found or 'no column'}. Rename "
            "the columns."
        )
    names = features.get(label, {}).get("names")
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    classes = tuple(names) if usable and names and len(set(names)) == len(names) else None
    others = tuple(name for name in of_classes if name != label)
    return Columns(image, label, nested(schema.field(image).type), classes, others)


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    """Return what the schema's metadata says about each column, if anything."""
    content = metadata.get(b"huggingface", b"")
    try:
        features = json.loads(content[: MAX_METADATA_BYTES + 1])["info"]["features"]
        return {name: each for name, each in features.items() if isinstance(each, dict)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
