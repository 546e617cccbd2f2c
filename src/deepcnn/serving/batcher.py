"""Pictures of several requests, answered together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from deepcnn.inference.classifier import Classifier, Pixels, Prediction

# How many pictures the network is asked about at once. Libraries keep megabytes for each size that
# they have met, so there are few sizes; beyond the largest a picture takes no less time.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
BATCH = SIZES[-1]

Answered = Future[list[Prediction]]


class Batcher:
    """A thread that answers waiting requests, in the order in which they came.

    While the network is busy, requests gather. Then the thread takes up to `BATCH` pictures of them
    at once. It never waits for more requests, so a single request is answered at once.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._waiting: deque[tuple[Sequence[Pixels], Answered]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="deepcnn-answers", daemon=True)
        self._thread.start()

    def ask(self, images: Sequence[Pixels]) -> Answered:
        """Return a future for the answers about images uint8 [*image_shape], in their order."""
        answered: Answered = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append((images, answered))
            self._changed.notify()
        return answered

    def close(self) -> None:
        """Answer all requests that still wait, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (some := self._next()) is not None:
            try:
                answers = self._answers([each for asked, _ in some for each in asked])
                found = [[next(answers) for _ in asked] for asked, _ in some]
            except BaseException as error:  # the thread must go on, and whoever waits must hear
                for _, answered in some:
                    answered.set_exception(error)
                continue
            for (_, answered), theirs in zip(some, found, strict=True):
                answered.set_result(theirs)

    def _answers(self, images: list[Pixels]) -> Iterator[Prediction]:
        """Yield the answers about images, in groups whose sizes are among `SIZES`."""
        rest = len(images) % BATCH
        size = next(size for size in SIZES if size >= rest) if rest else 0
        filled = images + images[:1] * (size - rest)
        for answer in self._classifier.try_predict(filled, batch=BATCH):
            assert isinstance(answer, Prediction)  # each is an image already
            yield answer

    def _next(self) -> list[tuple[Sequence[Pixels], Answered]] | None:
        """Wait for requests, and return one, or several that fit into a batch; None at the end.

        A request is never divided.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            some: list[tuple[Sequence[Pixels], Answered]] = []
            count = 0
            while self._waiting and (not some or count + len(self._waiting[0][0]) <= BATCH):
                images, answered = self._waiting.popleft()
                if answered.set_running_or_notify_cancel():
                    some.append((images, answered))
                    count += len(images)
            return some
