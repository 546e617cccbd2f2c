from __future__ import annotations

import hashlib

import numpy as np

from deepcnn.data.synthetic import synthetic


def test_synthetic_is_the_same_everywhere_and_its_splits_differ() -> None:
    train, test = synthetic("train"), synthetic("test")
    assert train.images.shape == (8192, 32, 32, 3)
    assert test.images.shape == (512, 32, 32, 3)
    digest = hashlib.sha256(train.images.tobytes() + test.images.tobytes()).hexdigest()
    assert digest == SYNTHETIC_SHA256
    assert not np.array_equal(train.images[0], test.images[0])


SYNTHETIC_SHA256 = "00551db71b762e5cd60eca23754fcc6b90b882563d7e13e7aa54e728bc0c1287"
