"""Pictures of several requests, answered together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from deepcnn.inference.classifier import BATCH, Classifier, Pixels, Prediction

Answered = Future[list[Prediction]]


class Batcher:
    """A thread that answers what waits, in the order in which it came.

    While the network is busy, requests gather; then it takes up to `batch` pictures of them at
    once. It never waits for more to come, so that a request that is alone is answered at once.
    """

    def __init__(self, classifier: Classifier, *, batch: int = BATCH) -> None:
        self._classifier = classifier
        self._batch = batch
        self._waiting: deque[tuple[Sequence[Pixels], Answered]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="deepcnn-answers", daemon=True)
        self._thread.start()

    def ask(self, images: Sequence[Pixels]) -> Answered:
        """Return what will be the answers about images uint8 [*image_shape], in their order."""
        answered: Answered = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append((images, answered))
            self._changed.notify()
        return answered

    def close(self) -> None:
        """Answer what still waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (some := self._next()) is not None:
            try:
                images = [each for asked, _ in some for each in asked]
                answers = self._classifier.predict(images)
                found = [[next(answers) for _ in asked] for asked, _ in some]
            except BaseException as error:  # the thread must go on, and whoever waits must hear
                for _, answered in some:
                    answered.set_exception(error)
                continue
            for (_, answered), theirs in zip(some, found, strict=True):
                answered.set_result(theirs)

    def _next(self) -> list[tuple[Sequence[Pixels], Answered]] | None:
        """Wait for requests and return some: one, or more that fit into a batch; None at the end.

        A request is never divided.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            some: list[tuple[Sequence[Pixels], Answered]] = []
            count = 0
            while self._waiting and (not some or count + len(self._waiting[0][0]) <= self._batch):
                images, answered = self._waiting.popleft()
                if answered.set_running_or_notify_cancel():
                    some.append((images, answered))
                    count += len(images)
            return some
