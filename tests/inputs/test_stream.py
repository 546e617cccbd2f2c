from __future__ import annotations

from contextlib import closing

import numpy as np

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import Memory
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream


def test_steps_compose(cifar10_test: Arrays) -> None:
    parts = slice(0, 400), slice(400, 700), slice(700, 900)
    shards = [Memory(cifar10_test.select(part)) for part in parts]
    shuffle = Shuffle.of(shards, seed=0, readers=2, buffer=100)
    plain = Stream.extract(shards, shuffle).shuffle()
    mapped = Stream.extract(shards, shuffle).map(lambda b: (255 - b[0], b[1] + 100)).shuffle()
    with closing(plain.batch(50, first_step=3)) as a, closing(mapped.batch(50, first_step=3)) as b:
        one, other = next(a), next(b)
    assert np.array_equal(255 - one.images, other.images)
    assert np.array_equal(one.labels + 100, other.labels)
    assert np.array_equal(one.index, other.index)
