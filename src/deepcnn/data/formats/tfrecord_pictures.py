"""TFRecord files with encoded pictures, as TF-Slim and TensorFlow Datasets write them.

Each record is an Example with a picture's file, `image/encoded` or `image`, and its label, one
integer, `image/class/label` or `label`. `image/format` is not needed, since the picture's header
says it. Names of the labels are in `labels.txt` (TF-Slim) or `label.labels.txt` (TFDS).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deepcnn.data.formats import preparing
from deepcnn.data.formats.parts import MOST_BYTES, InParts
from deepcnn.data.formats.tfrecord import IMAGE, is_record_file
from deepcnn.data.formats.tfrecord_example import Sort, find, label_at
from deepcnn.data.formats.tfrecord_files import Run, first_record, record_file
from deepcnn.data.splits import Opener, Split, group_files
from deepcnn.errors import DataError
from deepcnn.events import Listener
from deepcnn.settings import DataSpec

NAME = "TFRecord of pictures"
PICTURES = "image/encoded", "image"  # in the order in which they are looked for
LABELS = "image/class/label", "label"
# What other tasks put under these names counts as missing: the names of others are listed.
SORTS: dict[str, Sort] = {
    **dict.fromkeys(PICTURES, "string of bytes"),
    **dict.fromkeys(LABELS, "integer"),
}


class RecordPictures:
    """The pictures of a file; see `pictures.Pictures`."""

    def __init__(self, path: Path) -> None:
        self._records = record_file(path)

    @property
    def name(self) -> str:
        """What errors call it: a path."""
        return self._records.name

    @property
    def seekable(self) -> bool:
        """Whether the file is not compressed."""
        return self._records.seekable

    def __len__(self) -> int:
        return len(self._records)

    def parts(self, start: int, stop: int, size: int) -> InParts:
        """Yield the pictures `start` to `stop`; see `Pictures`."""
        with closing(self._records.runs(start, stop, size, MOST_BYTES)) as runs:
            for run in runs:
                yield Records(run)


@dataclass(frozen=True, eq=False)
class Records:
    """Some records, which are parsed where they are worked on; see `parts.Part`."""

    run: Run

    def __len__(self) -> int:
        return len(self.run)

    def __iter__(self) -> Iterator[tuple[bytes, int]]:
        return map(self._parsed, range(len(self.run)))

    def where(self, place: int) -> str:
        """Return the file and the record of a picture."""
        return f"{self.run.path}, {self.run.place(place)}"

    def _parsed(self, place: int) -> tuple[bytes, int]:
        """Return the bytes of a picture, and its label."""
        data = self.run.data(place)
        try:
            found, others = find(data, SORTS)
            picture = found.get(PICTURES[0], found.get(PICTURES[1]))
            label = found.get(LABELS[0], found.get(LABELS[1]))
            if picture is None or label is None:
                wanted = PICTURES if picture is None else LABELS
                raise ValueError(
                    f"expected a feature {' or '.join(wanted)}, found none (others: "
                    f"{', '.join(others) or 'none'})"
                )
            return data[slice(*picture)], label_at(data, label)
        except ValueError as error:
            raise DataError(
                f"{self.run.path}: {self.run.place(place)} is not an example that deepcnn can use: "
                f"{error}. Write the file with the features {PICTURES[0]} and {LABELS[0]}."
            ) from error


def recognize(
    folder: Path, files: list[str], spec: DataSpec, emit: Listener
) -> dict[Split, Opener]:
    """Return the splits in files with these names, if the first file holds pictures."""
    names = list(filter(is_record_file, files))
    if not names or not _holds_pictures(folder / min(names)):
        return {}
    groups = group_files(folder, names).items()
    return preparing.openers(
        {split: partial(_opened, paths) for split, paths in groups}, spec, emit
    )


def _opened(paths: Iterable[Path]) -> tuple[RecordPictures, ...]:
    return tuple(map(RecordPictures, paths))


def _holds_pictures(path: Path) -> bool:
    """Tell from the first record of a file whether it holds a picture, not its pixels."""
    try:
        data = first_record(path)
        found, _ = find(data, {IMAGE: "string of bytes"})
        return not found and any(find(data, {name: SORTS[name]})[0] for name in PICTURES)
    except (DataError, ValueError):
        return False  # the other reader says what is wrong
