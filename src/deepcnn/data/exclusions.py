"""The table of examples to leave out of a data set, as `deepcnn doctor --fixes` writes it.

The columns are split, index, path, action and reason; the first two are needed. An index is the
place of an example in its split as it lies on disk, before anything is held out.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deepcnn.data.formats.pictures import PictureShard
from deepcnn.data.source import Source
from deepcnn.data.splits import SPLITS, Split
from deepcnn.errors import DataError

COLUMNS = ("split", "index", "path", "action", "reason")
EXCLUDE = "exclude"  # the action that leaves an example out; other rows are passed over
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Exclusions:
    """What a table leaves out: for each split the indices, each with its path or "".

    `sha256`: of the table's content.
    """

    table: Path
    sha256: str
    rows: dict[Split, dict[int, str]] = field(repr=False)

    @classmethod
    def read(cls, table: Path) -> Exclusions:
        """Read a table; raise DataError, naming the line, if it cannot be understood."""
        try:
            if table.stat().st_size > MAX_BYTES:
                raise DataError(f"{table}: expected a table of at most {MAX_BYTES >> 20} MiB")
            content = table.read_bytes()
            lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True)
            missing = {"split", "index"} - set(lines.fieldnames or ())
            if missing:
                raise DataError(
                    f"{table}: expected the columns {', '.join(COLUMNS)}, found no "
                    f"{sorted(missing)[0]}. Write the table with: deepcnn doctor DATA --fixes FILE"
                )
            rows: dict[Split, dict[int, str]] = {}
            for row in lines:
                if (row.get("action") or EXCLUDE) == EXCLUDE:
                    split, index = _place(row, f"{table}, line {lines.line_num:,}")
                    rows.setdefault(split, {})[index] = row.get("path") or ""
        except OSError as error:
            raise DataError(f"{table}: cannot be read ({error.strerror or error})") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}: expected a table in UTF-8 with commas ({error})") from error
        return cls(table, hashlib.sha256(content).hexdigest(), rows)

    def apply(self, split: Split, source: Source) -> Source:
        """Return a split without the examples that are left out.

        Raises DataError for an index beyond its end, for a path that does not belong to the
        example, and if no example is left.
        """
        rows = self.rows.get(split)
        if not rows:
            return source
        beyond = max(rows)
        if beyond >= len(source):
            raise DataError(
                f"{self.table}: expected indices of the {split} split below {len(source):,}, found "
                f"{beyond:,}. The table is of other data; write it anew: deepcnn doctor"
            )
        self._check_paths(split, source, rows)
        keep = np.ones(len(source), np.bool_)
        keep[list(rows)] = False
        if not keep.any():
            raise DataError(
                f"{self.table}: leaves out all {len(source):,} examples of the {split} split. See "
                "its column reason and look at these examples; what is sound gets the action check "
                "instead of exclude."
            )
        return source.select(keep)

    def _check_paths(self, split: Split, source: Source, rows: dict[int, str]) -> None:
        paths = paths_of(source)
        for index, expected in rows.items():
            # The folder may have been moved since: the class folder and the file tell enough.
            if paths and expected and Path(expected).parts[-2:] != paths[index].parts[-2:]:
                raise DataError(
                    f"{self.table}: expected {expected} as number {index:,} of the {split} split, "
                    f"found {paths[index]}. The data changed since the table was written; write it "
                    "anew: deepcnn doctor"
                )


def paths_of(source: Source) -> tuple[Path, ...] | None:
    """Return the file of each example, for a source whose examples are files on disk."""
    found: list[Path] = []
    for shard in source.shards:
        if not isinstance(shard, PictureShard) or shard.paths is None:
            return None
        found += shard.paths
    return tuple(found)


def _place(row: dict[str, str], where: str) -> tuple[Split, int]:
    split, index = row["split"], row["index"] or ""
    if split not in SPLITS:
        raise DataError(f"{where}: expected a split of {', '.join(SPLITS)}, found {split!r}")
    if not (index.isascii() and index.isdecimal() and len(index) < 16):
        raise DataError(f"{where}: expected an index, a number from 0 on, found {index!r}")
    return split, int(index)
