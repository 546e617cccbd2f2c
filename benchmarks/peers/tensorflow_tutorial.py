"""The tutorial's inputs, training and prediction in TensorFlow 2.

    python tensorflow_tutorial.py input|train|predict BATCHES_DIR     # needs tensorflow

BATCHES_DIR holds data_batch_1.bin .. data_batch_5.bin. `input` makes shuffled batches of 128
images, each distorted on its own, by tf.data, from files and from memory; `train` trains the
network of TensorFlow's CIFAR-10 tutorial on them; `predict` computes its logits for a batch of 256
and for one image. The last line printed is JSON: images per second, and for one image its
milliseconds.

A step is one graph (`tf.function`), and tf.data prepares the next batches while it runs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported

import numpy as np
import tensorflow as tf

BATCH = 128
RECORD = 1 + 3 * 32 * 32
BUFFER = 20_000  # images in the shuffle buffer
CROP = 24
INPUT_STEPS = (100, 400)  # to warm up, measured
TRAIN_STEPS = (20, 130)
GROUP = 10  # steps of training that are timed together
PREDICT_BATCH = 256
PREDICT_CALLS = {PREDICT_BATCH: 20, 1: 500}
RATE, DECAY, AVERAGING = 0.1, 0.004, 0.9999


def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the image, row by row, and the label of a record."""
    values = tf.io.decode_raw(record, tf.uint8)
    planes = tf.reshape(values[1:], (3, 32, 32))
    return tf.transpose(planes, (1, 2, 0)), tf.cast(values[0], tf.int32)


def distort(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Crop, flip, brighten, change the contrast of and standardize one image."""
    image = tf.image.random_crop(image, (CROP, CROP, 3))  # as bytes: less to copy
    image = tf.cast(tf.image.random_flip_left_right(image), tf.float32)
    image = tf.image.random_brightness(image, max_delta=63)
    image = tf.image.random_contrast(image, lower=0.2, upper=1.8)
    return tf.image.per_image_standardization(image), label


def distorted(folder: Path, *, in_memory: bool) -> tf.data.Dataset:
    """Return endless batches of distorted images and labels."""
    files = [folder / f"data_batch_{i}.bin" for i in range(1, 6)]
    if in_memory:
        records = np.concatenate([np.fromfile(file, np.uint8) for file in files])
        records = records.reshape(-1, RECORD)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        examples = tf.data.Dataset.from_tensor_slices((images, records[:, 0].astype(np.int32)))
    else:
        examples = tf.data.FixedLengthRecordDataset([str(file) for file in files], RECORD)
        examples = examples.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return (
        examples.shuffle(BUFFER)
        .repeat()
        .map(distort, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


class Tutorial(tf.Module):
    """The network of the tutorial, its loss and its update."""

    def __init__(self) -> None:
        super().__init__()
        flat = (CROP // 4) ** 2 * 64
        self.conv1 = layer((5, 5, 3, 64), deviation=0.05, bias=0.0)
        self.conv2 = layer((5, 5, 64, 64), deviation=0.05, bias=0.1)
        self.local3 = layer((flat, 384), deviation=0.04, bias=0.1)
        self.local4 = layer((384, 192), deviation=0.04, bias=0.1)
        self.linear = layer((192, 10), deviation=1 / 192, bias=0.0)
        self.averages = [tf.Variable(v, trainable=False) for v in self.trainable_variables]
        self.steps = tf.Variable(0.0, trainable=False)

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Return the logits of distorted, or of cropped, images."""
        x = normalize(pool(convolve(images, *self.conv1)))
        x = pool(normalize(convolve(x, *self.conv2)))
        x = tf.reshape(x, (-1, self.local3[0].shape[0]))
        x = tf.nn.relu(x @ self.local3[0] + self.local3[1])
        x = tf.nn.relu(x @ self.local4[0] + self.local4[1])
        return x @ self.linear[0] + self.linear[1]

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Descend once, update the moving averages and return the loss."""
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self.logits(images))
            weights = tf.nn.l2_loss(self.local3[0]) + tf.nn.l2_loss(self.local4[0])
            loss = tf.reduce_mean(losses) + DECAY * weights
        gradients = tape.gradient(loss, variables)
        self.steps.assign_add(1)
        keep = tf.minimum(AVERAGING, (1 + self.steps) / (10 + self.steps))
        for variable, gradient, average in zip(variables, gradients, self.averages, strict=True):
            variable.assign_sub(RATE * gradient)
            average.assign_sub((1 - keep) * (average - variable))
        return loss


def layer(shape: tuple[int, ...], deviation: float, bias: float) -> tuple[tf.Variable, tf.Variable]:
    """Return the weights and biases of a layer."""
    weights = tf.random.truncated_normal(shape, stddev=deviation)
    return tf.Variable(weights), tf.Variable(tf.fill(shape[-1:], bias))


def convolve(x: tf.Tensor, weights: tf.Variable, biases: tf.Variable) -> tf.Tensor:
    """Convolve and rectify."""
    return tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weights, 1, "SAME"), biases))


def pool(x: tf.Tensor) -> tf.Tensor:
    """Halve the sides, overlapping."""
    return tf.nn.max_pool2d(x, 3, 2, "SAME")


def normalize(x: tf.Tensor) -> tf.Tensor:
    """Divide by what neighbouring channels say."""
    return tf.nn.local_response_normalization(
        x, depth_radius=4, bias=1.0, alpha=0.001 / 9, beta=0.75
    )


def inputs(folder: Path) -> dict[str, object]:
    """Measure the inputs alone, read from files and from memory."""
    warm_up, measured = INPUT_STEPS
    found: dict[str, object] = {}
    for name in ("files", "memory"):
        batches = iter(distorted(folder, in_memory=name == "memory"))
        for step in range(warm_up + measured):
            if step == warm_up:
                began = time.perf_counter()
            next(batches)
        found[name] = round(measured * BATCH / (time.perf_counter() - began))
    return found


def train(folder: Path) -> dict[str, object]:
    """Measure training: the median over groups of steps, as deepcnn's own figure."""
    model = Tutorial()
    step = tf.function(model.step)
    batches = iter(distorted(folder, in_memory=True))
    warm_up, measured = TRAIN_STEPS
    rates = []
    for group in range((warm_up + measured) // GROUP):
        began = time.perf_counter()
        for _ in range(GROUP):
            loss = step(*next(batches))
        loss.numpy()  # waits until it is known
        if group >= warm_up // GROUP:
            rates.append(GROUP * BATCH / (time.perf_counter() - began))
    if not tf.math.is_finite(loss):
        sys.exit("the loss is not finite")
    return {"fp32": round(statistics.median(rates))}


def predict(folder: Path) -> dict[str, object]:
    """Measure the logits of a batch, and of one image."""
    model = Tutorial()
    logits = tf.function(model.logits)
    images, _ = next(iter(distorted(folder, in_memory=False).unbatch().batch(PREDICT_BATCH)))
    batch = median_seconds(lambda: logits(images).numpy(), PREDICT_CALLS[PREDICT_BATCH])
    one = images[:1]
    single = median_seconds(lambda: logits(one).numpy(), PREDICT_CALLS[1])
    return {
        f"tutorial: images/s, batch {PREDICT_BATCH}": round(PREDICT_BATCH / batch),
        "tutorial: ms, batch 1": round(1000 * single, 3),
    }


def median_seconds(call: Callable[[], object], calls: int) -> float:
    """Return the median time of some calls, after a tenth as many to warm up."""
    for _ in range(calls // 10):
        call()
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


MODES = {"input": inputs, "train": train, "predict": predict}


def main() -> None:
    """Measure and print."""
    if len(sys.argv) != 3 or sys.argv[1] not in MODES:
        sys.exit(__doc__)
    result = MODES[sys.argv[1]](Path(sys.argv[2]))
    result["settings"] = {"shuffle buffer": BUFFER, "parallel calls": "AUTOTUNE"}
    result["versions"] = {"python": sys.version.split()[0], "tensorflow": tf.__version__}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
