"""Write small sets of pictures by programs that are not ours, for the tests of formats.

    python -m venv others && others/bin/pip install datasets pandas pillow tfrecord
    others/bin/python tests/golden/foreign/make.py

writes the files beside this one: TFRecords by the package `tfrecord`, one of them compressed by
GNU gzip, and Parquet by Hugging Face's `datasets`. `pictures.json` tells what is in each of them:
the bytes of each picture in hexadecimal, and its label.
"""

from __future__ import annotations

import io
import json
import subprocess
import zlib
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from tfrecord import TFRecordWriter

HERE = Path(__file__).parent
NAMES = ["cat", "dog", "owl"]
SIZES = [(6, 5), (6, 5), (9, 5), (6, 5), (6, 5), (4, 7), (6, 5)]


def encoded(index: int, height: int, width: int) -> bytes:
    random = np.random.default_rng(index)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    pictures = [encoded(index, *size) for index, size in enumerate(SIZES)]
    labels = [index * 2 % 3 for index in range(len(pictures))]
    told = {"labels": labels, "pictures": [picture.hex() for picture in pictures]}
    (HERE / "pictures.json").write_text(json.dumps(told) + "\n")

    slim = HERE / "animals_train_00000-of-00001.tfrecord"
    writer = TFRecordWriter(str(slim))
    for (height, width), picture, label in zip(SIZES, pictures, labels, strict=True):
        writer.write(
            {
                "image/encoded": (picture, "byte"),
                "image/format": (b"png", "byte"),
                "image/class/label": (label, "int"),
                "image/height": (height, "int"),
                "image/width": (width, "int"),
            }
        )
    writer.close()
    (HERE / "animals_train_00000-of-00001.tfrecord.zlib").write_bytes(
        zlib.compress(slim.read_bytes())
    )

    tfds = HERE / "animals-train.tfrecord-00000-of-00001"
    writer = TFRecordWriter(str(tfds))
    for picture, label in zip(pictures, labels, strict=True):
        writer.write({"image": (picture, "byte"), "label": (label, "int")})
    writer.close()
    subprocess.run(["gzip", "--no-name", "--best", "--force", tfds], check=True)

    rows = {"image": [{"bytes": p, "path": None} for p in pictures], "label": labels}
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    Dataset.from_dict(rows, features=features).to_parquet(
        HERE / "train-00000-of-00001.parquet", batch_size=3
    )


if __name__ == "__main__":
    main()
