from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from deepcnn.inputs.prefetch import Prefetch


def test_prefetch_raises_the_error_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield from range(5)
        raise ValueError("six")

    with closing(Prefetch(numbers(), ahead=2, name="n")) as items:
        assert [next(items) for _ in range(5)] == list(range(5))
        for _ in range(2):
            with pytest.raises(ValueError, match="six"):
                next(items)


def test_a_closed_prefetch_closes_its_iterator() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    items = Prefetch(endless(), ahead=2, name="n")
    next(items)
    items.close()
    assert closed == [True]
