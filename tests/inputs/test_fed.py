from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from deepcnn.devices import Part
from deepcnn.errors import DataError
from deepcnn.inputs.fed import Fed

WHOLE = Part(0, 1, torch.device("cpu"))


def fed(source: Any, **changes: Any) -> Fed:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "shape": (2, 3, 1),
        "classes": 3,
        "examples": 10,
    }
    return Fed(source, **(settings | changes))


GOOD = (np.zeros((4, 2, 3, 1), np.uint8), np.array([0, 1, 2, 0]))


@pytest.mark.parametrize(
    ("handed", "found"),
    [
        (None, "found nothing"),
        (GOOD[0], "found ndarray"),
        ((GOOD[0],), "found tuple of 1"),
        ((GOOD[0][:3], GOOD[1]), r"found images uint8 \[3, 2, 3, 1\]"),
        ((GOOD[0].astype(np.float32), GOOD[1]), r"found images float32 \[4, 2, 3, 1\]"),
        ((GOOD[0], GOOD[1][:2]), r"found labels int64 \[2\]"),
        ((GOOD[0], GOOD[1].astype(np.float64)), r"found labels float64 \[4\]"),
        ((GOOD[0], np.array([0, 1, 3, 0])), "found the label 3"),
        ((GOOD[0], np.array([0, 1, -1, 0])), "found the label -1"),
        ((*GOOD, np.zeros((4, 1), np.int64)), r"found index int64 \[4, 1\]"),
    ],
)
def test_a_wrong_feed_is_answered_with_the_step_and_what_was_expected(
    handed: Any, found: str
) -> None:
    feed = fed(lambda step: GOOD if step < 12 else handed)
    feed.batch(11, WHOLE)
    expected = r"step 12: expected \(images uint8 \[4, 2, 3, 1\], labels \[4\] of 0 to 2\)"
    with pytest.raises(DataError, match=f"{expected}, {found}"):
        feed.batch(12, WHOLE)


def test_feeds_may_be_functions_iterators_and_iterables_of_arrays_or_tensors() -> None:
    tensors = tuple(map(torch.from_numpy, GOOD))
    for source in (
        lambda _: GOOD,
        iter([GOOD, GOOD]),
        (GOOD for _ in range(2)),
        [tensors],
        lambda _: (*tensors, torch.tensor([9, 8, 7, 6])),
    ):
        feed = fed(source)
        for step in range(2):
            batch = feed.batch(step, WHOLE)
            assert batch.images.dtype == torch.uint8
            assert batch.labels.tolist() == [0, 1, 2, 0]
            assert (step * 4 + np.arange(4)).tolist() == (
                batch.epoch * 10 + batch.position
            ).tolist()
    assert batch.index.tolist() == [9, 8, 7, 6]
    with pytest.raises(DataError, match=r"expected a function of the step, .*found int"):
        fed(3)


def test_an_iterator_that_ends_is_an_error_with_the_step() -> None:
    feed = fed(iter([GOOD, GOOD]))
    feed.batch(0, WHOLE)
    feed.batch(1, WHOLE)
    with pytest.raises(DataError, match=r"step 2: .*found the end of the iterator"):
        feed.batch(2, WHOLE)
    with pytest.raises(DataError, match=r"step 0: .*found the end of the iterator"):
        fed([]).batch(0, WHOLE)
