from __future__ import annotations

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.errors import DataError


def test_arrays_refuse_what_does_not_fit() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(DataError, match=r"expected uint8 \[N, height, width, channels\]"):
        Arrays(images[0], np.zeros(2, np.int64), ("a",))
    with pytest.raises(
        DataError, match=r"expected int64 \[2\], one for each image, found int64 \[3\]"
    ):
        Arrays(images, np.zeros(3, np.int64), ("a",))
    with pytest.raises(
        DataError, match="expected 0 to 0, the index of a class, found 1 for example 1"
    ):
        Arrays(images, np.array([0, 1]), ("a",))
