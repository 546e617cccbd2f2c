"""Picture files: written, listed and read back."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.formats import decoding, listings, pictures
from deepcnn.data.formats.decoding import Format
from deepcnn.data.formats.listings import Listing
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.data.shards import Shard


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Return an image of random values, the same for the same size."""
    shape = height, width, channels
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def names(listing: Listing) -> list[tuple[str, str]]:
    return [
        (path.relative_to(listing.root).as_posix(), listing.classes[label])
        for path, label in zip(listing.paths, listing.labels, strict=True)
    ]


def read(shard: Shard) -> NDArray[np.uint8]:
    ((images, _),) = shard.blocks(0, len(shard), len(shard))
    return images


def decoded(
    content: bytes, form: Format | None = None, suffix: str = ".png", **options: Any
) -> NDArray[np.uint8]:
    """Write one picture, read it back as a set of its own or in a given format."""
    with tempfile.TemporaryDirectory() as folder:
        listing = listings.list_classes(write(Path(folder), {f"a/x{suffix}": content}))
        shard, _ = pictures.prepare(listing, **options)
        image: NDArray[np.uint8] = read(PictureShard(listing, form or shard.form))[0]
        return image


ANY = decoding.encode(noise(4, 4))
GRAY = Image.fromarray(noise(6, 5, 1)[:, :, 0])
COLOUR = Image.fromarray(noise(6, 5))
