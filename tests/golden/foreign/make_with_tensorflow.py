"""Write a small set of pictures by TensorFlow itself, for the tests of formats.

    python -m venv others && others/bin/pip install tensorflow-cpu==2.21.0
    others/bin/python tests/golden/foreign/make_with_tensorflow.py

writes three files beside this one. The two TFRecords, the second one compressed by TensorFlow, hold
the same pictures, which TensorFlow encoded; `tensorflow.npz`, written by NumPy, holds what
TensorFlow decodes of the first, in `x_train`, and one-hot labels of TensorFlow's in `y_train`.
TensorFlow orders features anew in each run, so the files are never the same twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
PLAIN = HERE / "written_by_tensorflow_train_00000-of-00001.tfrecord"
PACKED = HERE / "written_by_tensorflow-train.tfrecord-00000-of-00001.gz"
COUNT, SIDE, CLASSES = 10, 16, 3


def picture(index: int) -> Any:
    """Return a picture that is not noise, so that it takes few bytes."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    channels = [rows * (index + 1), columns * (index * 3 + 2), rows * columns + index * 20]
    return (np.stack(channels, -1) % 256).astype(np.uint8)


def record(index: int) -> bytes:
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[index * 2 % CLASSES]))
    encoded = tf.io.encode_png(picture(index)).numpy()
    content = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
    kind = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"png"]))
    feature = {"image/encoded": content, "image/format": kind, "image/class/label": label}
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    serialized: bytes = example.SerializeToString()
    return serialized


def main() -> None:
    for path, options in ((PLAIN, ""), (PACKED, "GZIP")):
        with tf.io.TFRecordWriter(str(path), options=options) as writer:
            for index in range(COUNT):
                writer.write(record(index))
    wanted = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    found = [
        tf.io.parse_single_example(each, wanted) for each in tf.data.TFRecordDataset(str(PLAIN))
    ]
    images = [tf.io.decode_image(each["image/encoded"]).numpy() for each in found]
    labels = [tf.one_hot(each["image/class/label"], CLASSES).numpy() for each in found]
    np.savez_compressed(
        HERE / "written_by_tensorflow.npz", x_train=np.stack(images), y_train=np.stack(labels)
    )


if __name__ == "__main__":
    main()
