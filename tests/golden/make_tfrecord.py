"""Makes the golden TFRecord files with TensorFlow; not part of the tests' run.

    pip install tensorflow-cpu google-crc32c
    PYTHONPATH=src python tests/golden/make_tfrecord.py

TensorFlow writes tests/golden/tensorflow.tfrecords, for our reader; and reads what our writer
wrote, tests/golden/deepcnn.tfrecords, which is kept only where TensorFlow finds the examples in it.
TensorFlow orders features anew in each run, so the first file is never the same twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats import tfrecord

HERE = Path(__file__).parent
LABELS = [0, 300, 1, 127, 128]
SHAPE = 4, 6, 3


def examples() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 [5, 4, 6, 3] and labels."""
    index = np.arange(len(LABELS) * np.prod(SHAPE))
    images = (index * 37 % 251).astype(np.uint8).reshape(-1, *SHAPE)
    return images, np.array(LABELS, np.int64)


def main() -> None:
    """Write the one file and check the other."""
    import tensorflow as tf

    def integer(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    images, labels = examples()
    height, width, depth = SHAPE
    with tf.io.TFRecordWriter(str(HERE / "tensorflow.tfrecords")) as writer:
        for image, label in zip(images, labels.tolist(), strict=True):
            raw = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
            feature = {
                "height": integer(height),
                "width": integer(width),
                "depth": integer(depth),
                "label": integer(label),
                "image_raw": raw,
            }
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())

    path = HERE / "deepcnn.tfrecords"
    path.write_bytes(tfrecord.encode(images, labels))
    names = "height", "width", "depth", "label"
    expected = {name: tf.io.FixedLenFeature([], tf.int64) for name in names}
    expected["image_raw"] = tf.io.FixedLenFeature([], tf.string)
    try:
        found = [
            tf.io.parse_single_example(record, expected)
            for record in tf.data.TFRecordDataset(str(path))
        ]
        assert [int(each["label"]) for each in found] == labels.tolist()
        for each, image in zip(found, images, strict=True):
            assert tuple(int(each[name]) for name in names[:3]) == SHAPE
            pixels = tf.reshape(tf.io.decode_raw(each["image_raw"], tf.uint8), SHAPE)
            assert np.array_equal(pixels.numpy(), image)
    except BaseException:
        path.unlink()
        raise


if __name__ == "__main__":
    main()
