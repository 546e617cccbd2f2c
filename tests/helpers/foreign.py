"""Small sets that programs other than ours wrote, and what is in them."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tests import golden

FOREIGN = Path(golden.__file__).parent / "foreign"
NAMES = ("cat", "dog", "owl")
TOLD: dict[str, Any] = json.loads((FOREIGN / "pictures.json").read_text())
FILES = [bytes.fromhex(each) for each in TOLD["pictures"]]  # of PNG, not all of one size
LABELS: list[int] = TOLD["labels"]


def expected(height: int = 6, width: int = 5) -> NDArray[np.uint8]:
    """Return the pictures, brought to one size by Pillow."""
    size = width, height
    opened = [Image.open(io.BytesIO(each)) for each in FILES]
    lanczos = Image.Resampling.LANCZOS
    fitted = [each if each.size == size else ImageOps.fit(each, size, lanczos) for each in opened]
    return np.stack([np.asarray(each) for each in fitted])


def folder(root: Path, name: str, labels: str | None = None) -> Path:
    """Copy one of the files into a folder, and with it a file of the labels' names."""
    root.mkdir(exist_ok=True)
    shutil.copy(FOREIGN / name, root)
    if labels is not None:
        numbered = labels == "labels.txt"
        lines = [f"{i}:{name}\n" if numbered else f"{name}\n" for i, name in enumerate(NAMES)]
        (root / labels).write_text("".join(lines))
    return root


def zipped(root: Path) -> Path:
    """Write an archive of class folders, as Python does."""
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for i, (label, content) in enumerate(zip(LABELS, FILES, strict=True)):
            archive.writestr(f"{NAMES[label]}/{i}.png", content)
    return path
