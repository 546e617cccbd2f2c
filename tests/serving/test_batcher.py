from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from deepcnn.inference.calibration import Floats
from deepcnn.inference.classifier import Classifier, Pixels
from deepcnn.serving.batcher import Batcher

SHAPE = (4, 4, 1)


class Slow:
    """A network whose answer is the first pixel; it waits until it may go on."""

    def __init__(self) -> None:
        self.began, self.may_go = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self.error: Exception | None = None

    def logits(self, images: Pixels) -> Floats:
        self.batches.append(len(images))
        self.began.set()
        assert self.may_go.wait(60)
        if self.error is not None:
            raise self.error
        return np.asarray(images[:, 0, 0] == np.arange(10), np.float32)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def batcher(slow: Slow) -> Iterator[Batcher]:
    made = Batcher(Classifier(slow, tuple("0123456789"), SHAPE), batch=8)
    yield made
    slow.may_go.set()
    made.close()


def images(*labels: int) -> list[Pixels]:
    return [np.full(SHAPE, label, np.uint8) for label in labels]


def test_what_waits_is_answered_together_and_each_gets_its_own(
    slow: Slow, batcher: Batcher
) -> None:
    first = batcher.ask(images(7))
    assert slow.began.wait(60)
    rest = [batcher.ask(images(*labels)) for labels in ((1, 2, 3), (4,), (5, 6, 7, 8), (9,))]
    slow.may_go.set()
    found = [[each.label for each in asked.result(60)] for asked in (first, *rest)]
    assert found == [["7"], ["1", "2", "3"], ["4"], ["5", "6", "7", "8"], ["9"]]
    assert slow.batches == [1, 8, 1]


def test_a_request_that_is_alone_is_answered_at_once(slow: Slow, batcher: Batcher) -> None:
    slow.may_go.set()
    for label in range(10):
        assert batcher.ask(images(label)).result(60)[0].label == str(label)
    assert slow.batches == [1] * 10


def test_a_request_larger_than_a_batch_is_answered(slow: Slow, batcher: Batcher) -> None:
    slow.may_go.set()
    labels = [i % 10 for i in range(300)]
    assert [int(each.label) for each in batcher.ask(images(*labels)).result(60)] == labels


def test_an_error_reaches_all_who_wait_and_the_thread_goes_on(slow: Slow, batcher: Batcher) -> None:
    slow.error = RuntimeError("no memory")
    slow.may_go.set()
    with pytest.raises(RuntimeError, match="no memory"):
        batcher.ask(images(1)).result(60)
    slow.error = None
    assert batcher.ask(images(1)).result(60)[0].label == "1"


def test_who_no_longer_waits_is_left_out(slow: Slow, batcher: Batcher) -> None:
    first = batcher.ask(images(1))
    assert slow.began.wait(60)
    gone, stays = batcher.ask(images(2)), batcher.ask(images(3))
    assert gone.cancel()
    assert not first.cancel()  # the network works at it
    slow.may_go.set()
    assert stays.result(60)[0].label == "3"
    assert slow.batches == [1, 1]


def test_closing_answers_what_waits(slow: Slow) -> None:
    batcher = Batcher(Classifier(slow, tuple("0123456789"), SHAPE))
    asked = [batcher.ask(images(label)) for label in (1, 2)]
    slow.may_go.set()
    batcher.close()
    assert [each.result(0)[0].label for each in asked] == ["1", "2"]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.ask(images(3))
