"""Where the batches of a fed training come from: a function, an iterable, or a pipeline.

Each kind is asked for the batches of the steps, one after another, and knows from where it can be
resumed.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from typing_extensions import override

from deepcnn.errors import DataError
from deepcnn.inputs.feeds import STATES, Streamed
from deepcnn.inputs.stream import HostBatch, Stream

Handed = tuple[Any, Any] | tuple[Any, Any, Any] | HostBatch
Kind = Literal["function", "stateful", "iterator"]


@runtime_checkable
class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Supply(ABC):
    """Hands over the batch of a step, the next one at each call.

    `kind` tells from where it can be resumed. "function": from any step. "stateful": from a
    checkpoint, which holds its state. "iterator": not at all.
    """

    kind: ClassVar[Kind]

    @abstractmethod
    def batch(self, step: int) -> Any:
        """Return the batch of a step; None if there is none."""

    def state(self, step: int) -> dict[str, Any] | None:  # noqa: ARG002
        """Return its place before a step, for JSON; None if the step itself is enough."""
        return None

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from a `state`."""

    def close(self) -> None:  # noqa: B027 (a function has nothing to close)
        """Stop all threads that it has started."""


class OfFunction(Supply):
    """A function of the step."""

    kind: ClassVar[Kind] = "function"

    def __init__(self, function: Callable[[int], Any]) -> None:
        self._function = function

    @override
    def batch(self, step: int) -> Any:
        return self._function(step)


class OfIterable(Supply):
    """An iterable; if it is `endless`, it is asked for a new iterator when one has ended."""

    kind: ClassVar[Kind] = "iterator"

    def __init__(self, iterable: Iterable[Any], *, endless: bool) -> None:
        self._iterable = iterable
        self._endless = endless
        self._iterator: Iterator[Any] | None = None

    @override
    def batch(self, step: int) -> Any:
        first = self._iterator is None
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        for found in self._iterator:
            return found
        if not first and self._endless and self._iterator is not self._iterable:
            self._iterator = iter(self._iterable)
            for found in self._iterator:
                return found
        return None

    @override
    def close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class OfStateful(OfIterable):
    """An iterable with `load_state_dict()` and a `state_dict()` that JSON can hold."""

    kind: ClassVar[Kind] = "stateful"

    def __init__(self, iterable: Iterable[Any], *, endless: bool) -> None:
        super().__init__(iterable, endless=endless)
        assert isinstance(iterable, _Stateful)
        self._stateful: _Stateful = iterable
        self._states: dict[int, str] = {}  # before these steps, as JSON: it may change its own

    @override
    def batch(self, step: int) -> Any:
        found = super().batch(step)
        try:
            self._states[step + 1] = json.dumps(self._stateful.state_dict())
        except (TypeError, ValueError) as error:
            raise DataError(
                f"feed: expected {type(self._stateful).__name__}.state_dict() to give what JSON "
                f"can hold ({error})"
            ) from error
        self._states.pop(step + 1 - STATES, None)
        return found

    @override
    def state(self, step: int) -> dict[str, Any]:
        if not self._states:  # nothing was handed over
            self._states[step] = json.dumps(self._stateful.state_dict())
        state: dict[str, Any] = json.loads(self._states[step])
        return state

    @override
    def restore(self, state: dict[str, Any]) -> None:
        self._stateful.load_state_dict(state)


class OfStream(Supply):
    """A pipeline whose batches are functions of the step, read ahead in a thread."""

    kind: ClassVar[Kind] = "function"

    def __init__(self, stream: Stream, batch_size: int) -> None:
        self._streamed = Streamed(stream, batch_size=batch_size)

    @override
    def batch(self, step: int) -> Any:
        found = self._streamed.read(step)
        return None if found is None else (found.images, found.labels, found.index)

    @override
    def close(self) -> None:
        self._streamed.close()


class OfStatefulStream(OfStream):
    """A pipeline with steps that change the number of examples; its state is its place."""

    kind: ClassVar[Kind] = "stateful"

    @override
    def batch(self, step: int) -> Any:
        return self._streamed.read(step)

    @override
    def state(self, step: int) -> dict[str, Any]:
        return self._streamed.state_before(step)

    @override
    def restore(self, state: dict[str, Any]) -> None:
        self._streamed.go_on_from(state)


def supply_of(source: Any, *, batch_size: int, endless: bool) -> Supply:
    """Return the supply for a source; raise DataError for an object that cannot be one."""
    if isinstance(source, Stream):
        return (OfStream if source.by_step else OfStatefulStream)(source, batch_size)
    if isinstance(source, _Stateful):
        return OfStateful(source, endless=endless)  # type: ignore[arg-type]
    if callable(source):
        return OfFunction(source)
    if isinstance(source, Iterable):
        return OfIterable(source, endless=endless)
    raise DataError(
        "feed: expected a function of the step, an iterator or an iterable of batches, "
        f"found {type(source).__name__}"
    )
