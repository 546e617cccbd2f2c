"""From a request's body to its answer, outside the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepcnn import __version__
from deepcnn.data.formats.decoding import BadPictureError, decode
from deepcnn.inference.as_json import as_json
from deepcnn.inference.classifier import Classifier, Pixels, Prediction, Unread
from deepcnn.serving.batcher import Batcher
from deepcnn.serving.limits import TRY_AGAIN, Held, Limits, RefusedError
from deepcnn.serving.pictures import Sent, sent_in

Read = tuple[str, Pixels | str]  # a picture's name, and its pixels or why there are none
_MOST_READERS = 4  # threads that decode; each may hold a picture of the decoder's largest size


@dataclass(frozen=True)
class Answer:
    """The answer to a request: the HTTP status, and the content as JSON."""

    status: int
    content: dict[str, Any] | list[dict[str, Any]]


class Service:
    """Answers requests about pictures; of HTTP, it knows only the statuses.

    Threads read the bodies and decode the pictures; another thread asks the network. `run`: the
    name of the network in `about`.
    """

    def __init__(self, classifier: Classifier, limits: Limits, run: str) -> None:
        self.limits = limits
        self.held = Held(limits.held)
        self._classifier = classifier
        self._run = run
        self._waiting = 0
        self._form = classifier.form
        self._batcher = Batcher(classifier)
        # The first answer takes longer, so nobody shall wait for it.
        self._batcher.ask([np.zeros(classifier.image_shape, np.uint8)]).result()
        readers = min(os.cpu_count() or 1, _MOST_READERS)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="deepcnn-reader")

    def about(self) -> dict[str, Any]:
        """Return a description of the network, as a JSON object."""
        return {
            "run": self._run,
            "version": __version__,
            "classes": list(self._classifier.classes),
            "image_shape": list(self._classifier.image_shape),
        }

    def check_free(self) -> None:
        """Raise RefusedError if as many requests wait as are allowed."""
        if self._waiting >= self.limits.waiting:
            raise RefusedError(503, "too many requests are waiting", TRY_AGAIN)

    async def answer(self, content_type: str, body: bytes) -> Answer:
        """Answer about the pictures in a body; raise RefusedError if this is not possible."""
        with self._place():
            read, several = await asyncio.get_running_loop().run_in_executor(
                self._readers, self._read, content_type, body
            )
            images = [pixels for _, pixels in read if not isinstance(pixels, str)]
            answers = await asyncio.wrap_future(self._batcher.ask(images)) if images else []
        found = [as_json(each, self._classifier.classes) for each in _in_order(read, answers)]
        return Answer(200 if images else 422, found if several else found[0])

    def close(self) -> None:
        """Answer all requests that still wait, and end all threads."""
        self._readers.shutdown()
        self._batcher.close()

    @contextmanager
    def _place(self) -> Iterator[None]:
        self.check_free()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _read(self, content_type: str, body: bytes) -> tuple[list[Read], bool]:
        sent, several = sent_in(content_type, body, self.limits.pictures)
        return [(each.name, self._pixels(each)) for each in sent], several

    def _pixels(self, sent: Sent) -> Pixels | str:
        """Return a picture's pixels, uint8 [*image_shape], or why there are none."""
        if sent.error is not None:
            return sent.error
        try:
            return decode(io.BytesIO(sent.content), self._form)
        except BadPictureError as error:
            return str(error)


def _in_order(read: list[Read], answers: list[Prediction]) -> Iterator[Prediction | Unread]:
    """Yield the answers with the names that were sent, and the errors, in order."""
    each = iter(answers)
    for name, pixels in read:
        if isinstance(pixels, str):
            yield Unread(name, pixels)
        else:
            yield dataclasses.replace(next(each), source=name)
