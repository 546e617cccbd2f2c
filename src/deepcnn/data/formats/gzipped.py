"""Files that may be compressed by gzip; their first bytes decide, not their names."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepcnn.errors import DataError


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file, through gzip if its first bytes are gzip's; errors become DataError."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=file) as stream:
                    yield stream
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: expected a whole gzip stream, found one that is damaged or ends early "
            f"({error}). Fetch the file again."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
