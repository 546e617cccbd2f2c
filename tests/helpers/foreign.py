"""Small sets that programs other than ours wrote, and what is in them."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepcnn import presets
from tests import golden

FOREIGN = Path(golden.__file__).parent / "foreign"
NAMES = ("cat", "dog", "owl")
TOLD: dict[str, Any] = json.loads((FOREIGN / "pictures.json").read_text())
FILES = [bytes.fromhex(each) for each in TOLD["pictures"]]  # of PNG, not all of one size
LABELS: list[int] = TOLD["labels"]
TRAINING = dataclasses.replace(
    presets.tiny(),
    summary_every=0,
    device="cpu",
    precision="fp32",
    steps=4,
    save_every=2,
    batch_size=2,
    feed="streamed",
    shuffle_buffer=4,
    image_size=(16, 16),
)


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


def tree(root: Path) -> Path:
    """Write the pictures into class folders."""
    for i, (label, content) in enumerate(zip(LABELS, FILES, strict=True)):
        (root / NAMES[label]).mkdir(parents=True, exist_ok=True)
        (root / NAMES[label] / f"{i}.png").write_bytes(content)
    return root


def archived(root: Path, kind: str) -> Path:
    """Write an archive of class folders, as Python's shutil does: zip, tar or gztar."""
    return Path(shutil.make_archive(str(root), kind, tree(root.with_name("pictures"))))


def kaggle(root: Path) -> Path:
    """Write what Kaggle's CIFAR-10 is once its archives are unpacked; its order is that of here."""
    for folder, files in (("train", FILES), ("test", FILES[:2])):
        (root / folder).mkdir(parents=True)
        for number, content in enumerate(files, 1):
            (root / folder / f"{number}.png").write_bytes(content)
    names = [NAMES[label] for label in LABELS]
    for table, answers in (("trainLabels.csv", names), ("sampleSubmission.csv", ["cat"] * 2)):
        lines = [f"{number},{name}\n" for number, name in enumerate(answers, 1)]
        (root / table).write_text("id,label\n" + "".join(lines))
    return root
