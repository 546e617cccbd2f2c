"""Runs an iterator in a thread, a few items ahead of its reader."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class Prefetch(Iterator[T]):
    """Runs an iterator in a thread, at most `ahead` items ahead of its reader.

    An error in the iterator is raised in place of its next item. `close` stops the thread, closes
    the iterator and waits until both are done.
    """

    def __init__(self, iterator: Iterator[T], *, ahead: int, name: str) -> None:
        self._iterator = iterator
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            while not (self._items or self._ended):
                self._changed.wait()
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def close(self) -> None:
        """Stop, and drop what was read ahead."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._items.clear()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._iterator:
                with self._changed:
                    while len(self._items) >= self._ahead and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        break
                    self._items.append(item)
                    self._changed.notify_all()
        except BaseException as caught:  # it is raised in the thread that takes the items
            error = caught
        finally:
            close = getattr(self._iterator, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._error, self._ended = error, True
                self._changed.notify_all()
