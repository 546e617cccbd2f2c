"""Computes the golden numbers of the tutorial network with TensorFlow; not part of the tests' run.

    pip install tensorflow-cpu
    PYTHONPATH=src python tests/golden/tensorflow_reference.py

Weights, images and draws are functions of `deepcnn.hashing` (NumPy alone), so the tests make
the same ones, and only TensorFlow's answers are stored: tests/golden/tutorial.npz. Of large
tensors every 97th value and the Euclidean norm are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deepcnn import hashing

LAYERS = {
    "conv1": ((5, 5, 3, 64), 0.05, 0.0),
    "conv2": ((5, 5, 64, 64), 0.05, 0.1),
    "local3": ((2304, 384), 0.04, 0.1),
    "local4": ((384, 192), 0.04, 0.1),
    "softmax_linear": ((192, 10), 0.04, 0.0),
}
EXAMPLES = 16
UPDATES = 3


def uniform(stream: int, *shape: int) -> NDArray[np.float64]:
    """Return float64 values of [0, 1) that depend on `stream` alone."""
    position = np.arange(np.prod(shape), dtype=np.int64)
    bits = hashing.bits(7, 100 + stream, np.zeros(1, np.int64), position)
    return np.asarray(hashing.unit(bits)).reshape(shape)


def weights() -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the weights in TensorFlow's layout, float32, by layer, and the biases."""
    found = {}
    for stream, (name, (shape, spread, bias)) in enumerate(LAYERS.items()):
        weight = (uniform(stream, *shape) - 0.5) * 2 * spread
        found[name] = weight.astype(np.float32), np.full(shape[-1], bias, np.float32)
    return found


def examples() -> dict[str, NDArray[Any]]:
    """Return images uint8 [N, 32, 32, 3], labels, and the draws for each: as a dictionary."""
    n = EXAMPLES
    coarse = np.kron(uniform(20, n, 8, 8, 3), np.ones((1, 4, 4, 1)))
    images = (coarse * 200 + uniform(21, n, 32, 32, 3) * 55).astype(np.uint8)
    return {
        "images": images,
        "labels": np.arange(n, dtype=np.int64) % 10,
        "row": (uniform(22, n) * 9).astype(np.int64),
        "column": (uniform(23, n) * 9).astype(np.int64),
        "flip": uniform(24, n) < 0.5,
        "brightness": ((uniform(25, n) - 0.5) * 126).astype(np.float32),
        "contrast": (0.2 + 1.6 * uniform(26, n)).astype(np.float32),
    }


def sample(values: ArrayLike) -> NDArray[np.float64]:
    """Return what is kept of a tensor: every 97th value and the norm, or all of a small one."""
    flat = np.asarray(values, np.float64).reshape(-1)
    thin = flat[::97] if flat.size > 1000 else flat
    return np.append(thin, np.linalg.norm(flat))


def main() -> None:
    """Compute and store the numbers."""
    import tensorflow as tf

    kernels = {name: tf.Variable(w) for name, (w, _) in weights().items()}
    biases = {name: tf.Variable(b) for name, (_, b) in weights().items()}
    data = examples()

    def network(x: Any) -> Any:
        def normalize(h: Any) -> Any:
            return tf.nn.local_response_normalization(h, 4, bias=1.0, alpha=0.001 / 9, beta=0.75)

        def conv(h: Any, name: str) -> Any:
            h = tf.nn.conv2d(h, kernels[name], 1, "SAME") + biases[name]
            return tf.nn.relu(h)

        h = normalize(tf.nn.max_pool2d(conv(x, "conv1"), 3, 2, "SAME"))
        h = tf.nn.max_pool2d(normalize(conv(h, "conv2")), 3, 2, "SAME")
        h = tf.reshape(h, [h.shape[0], -1])
        for name in ("local3", "local4"):
            h = tf.nn.relu(h @ kernels[name] + biases[name])
        return h @ kernels["softmax_linear"] + biases["softmax_linear"]

    distorted, central = [], []
    for i in range(EXAMPLES):
        image = tf.cast(data["images"][i], tf.float32)
        row, column = data["row"][i], data["column"][i]
        crop = image[row : row + 24, column : column + 24]
        crop = tf.image.flip_left_right(crop) if data["flip"][i] else crop
        crop = tf.image.adjust_brightness(crop, data["brightness"][i])
        crop = tf.image.adjust_contrast(crop, data["contrast"][i])
        distorted.append(tf.image.per_image_standardization(crop))
        centre = tf.image.resize_with_crop_or_pad(image, 24, 24)
        central.append(tf.image.per_image_standardization(centre))
    distorted, central = tf.stack(distorted), tf.stack(central)
    kept = {
        "distorted": sample(distorted),
        "central": sample(central),
        "logits": network(central).numpy(),
    }
    variables = {f"{n}.weight": v for n, v in kernels.items()}
    variables |= {f"{n}.bias": v for n, v in biases.items()}
    averages = {name: v.numpy() for name, v in variables.items()}
    for n in range(1, UPDATES + 1):
        with tf.GradientTape() as tape:
            entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
                data["labels"], network(distorted)
            )
            parts = [
                tf.reduce_mean(entropy),
                0.004 * tf.nn.l2_loss(kernels["local3"]),
                0.004 * tf.nn.l2_loss(kernels["local4"]),
            ]
            total = tf.add_n(parts)
        gradients = tape.gradient(total, list(variables.values()))
        if n == 1:
            kept["losses"] = np.array([*parts, total], np.float64)
            for name, gradient in zip(variables, gradients, strict=True):
                kept[f"gradient.{name}"] = sample(gradient)
        decay = min(0.9999, (1 + n) / (10 + n))
        for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
            averages[name] = decay * averages[name] + (1 - decay) * variable.numpy()
    for name, variable in variables.items():
        kept[f"updated.{name}"] = sample(variable)
        kept[f"average.{name}"] = sample(averages[name])
    kept["tensorflow"] = np.array(tf.__version__)
    np.savez_compressed(Path(__file__).with_name("tutorial.npz"), **kept)


if __name__ == "__main__":
    main()
