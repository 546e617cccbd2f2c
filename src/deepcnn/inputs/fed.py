"""The feed for batches that Python hands over, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from deepcnn.data.arrays import Arrays
from deepcnn.devices import Part
from deepcnn.errors import DataError, RunError
from deepcnn.inputs.feeds import Batch, Feed, part_of
from deepcnn.inputs.handed import Handed, supply_of
from deepcnn.inputs.shuffle import Int64s, Shuffle, places
from deepcnn.inputs.stream import HostBatch, Stream

FeedSource = Callable[[int], Any] | Iterable[Any] | Stream


@dataclass(frozen=True)
class Fed:
    """What Python feeds a training with: `deepcnn.train(config, feed=Fed(source, prepared=True))`.

    `source`: a function of the step, an iterable, or a `Stream`. A batch is (images, labels) or
    (images, labels, index), as NumPy arrays or torch tensors. images: uint8 [batch_size, H, W, C].
    labels: any integers [batch_size] from 0 to classes - 1. index: integers [batch_size] that say
    which examples these are, for distortions that treat an example the same way each epoch. Without
    an index, an example is known by its place in the epoch. When an iterable has ended, it is asked
    for a new iterator; an iterator that ends is an error.

    `prepared`: images are the network's input, float32 [batch_size, C, H, W] or, for the network
    mlp, [batch_size, H·W·C]. The training uses them as they are. Scoring and predictions use the
    run's transform on the set's images, as always; so prepare your images in the same way.

    `ends`: if the source ends before the last step, the training ends there, too. It ends with a
    checkpoint and a score, as if `steps` had been this number. An iterable is then asked for one
    iterator only; a function returns None when there are no more batches; examples that are too few
    for a batch are left out. A stream with `repeat` ends without this option.
    """

    source: FeedSource
    prepared: bool = False
    ends: bool = False

    @classmethod
    def of(cls, feed: Fed | FeedSource) -> Fed:
        """Return a source as a `Fed`."""
        return feed if isinstance(feed, Fed) else cls(feed)

    @property
    def has_end(self) -> bool:
        """Whether the training ends when the source ends."""
        return self.ends or (isinstance(self.source, Stream) and self.source.epochs is not None)


@dataclass(frozen=True)
class Expected:
    """What the batches of a feed must be.

    `shape`: of the images, [H, W, C]. `input_shape`: of the network's input, [C, H, W]. `flat`: it
    may also be handed over as rows of pixels. `examples`: of the training set; they define an epoch
    if the source does not count epochs.
    """

    batch_size: int
    shape: tuple[int, int, int]
    input_shape: tuple[int, int, int]
    classes: int
    examples: int
    flat: bool = False


class PythonFeed(Feed):
    """Python hands over each batch, which is checked.

    A stream's batches are read ahead in a thread, which `close` ends. `fed_by` tells how the source
    can be resumed (see `handed.Supply`), and what else the source of a resumed run must have in
    common with it.
    """

    def __init__(self, fed: Fed, expected: Expected) -> None:
        self._fed, self._expected = fed, expected
        self.prepared = fed.prepared
        self._supply = supply_of(
            fed.source, batch_size=expected.batch_size, endless=not fed.has_end
        )
        prepared, ends = ["prepared"] * fed.prepared, ["ends"] * fed.has_end
        self.fed_by = ", ".join([self._supply.kind, *prepared, *ends])
        self._step = -1  # whose batch was handed over last
        self._batch: HostBatch | None = None
        self._next: tuple[int, HostBatch | None] = (-1, None)  # looked at, of a source that ends

    @override
    def batch(self, step: int, part: Part) -> Batch:
        if step != self._step or self._batch is None:
            found = self._next[1] if self._next[0] == step else self._hand_over(step)
            if found is None:
                raise self._wrong(step, "the end of the feed")
            self._step, self._batch = step, found
            if self._fed.has_end:
                self.look(step + 1)
        return part_of(self._batch, part)

    @override
    def look(self, step: int) -> None:
        # while the batch before is trained on, so that the last step is known to be the last
        if self._fed.has_end and self._next[0] != step:
            self._next = step, self._hand_over(step)
            if self._next[1] is None:
                if step == 0:
                    raise self._wrong(step, "the end of the feed")
                self.ends = step

    @override
    def close(self) -> None:
        self._supply.close()

    @override
    def state(self, step: int) -> dict[str, Any] | None:
        # what it was then: batches may have been handed over for a few steps beyond
        return self._supply.state(step)

    @override
    def restore(self, kind: str, state: dict[str, Any] | None) -> None:
        if kind.startswith("iterator"):
            raise RunError(
                "feed: this run was fed by an iterator that is no function of the step and has no "
                "state_dict, so nobody knows where it stood; it cannot be resumed. Start a new run."
            )
        if kind != self.fed_by:
            raise RunError(
                f"feed: expected a {kind} source, which this run was fed by, found {self.fed_by}"
            )
        if state is not None:
            self._supply.restore(state)

    def _hand_over(self, step: int) -> HostBatch | None:
        """Return the checked batch of a step; None if a source that may end has ended."""
        found = self._supply.batch(step)
        if found is None and (self._fed.has_end or self._supply.kind != "function"):
            return None
        handed = found if isinstance(found, HostBatch) else None
        parts = found if handed is None else (handed.images, handed.labels, handed.index)
        images, labels, index = self._check(step, parts)
        if len(labels) < self._expected.batch_size:
            return None
        epoch, position = places(step, self._expected.batch_size, self._expected.examples)
        if handed is not None:
            epoch, position = handed.epoch, handed.position
        return HostBatch(images, labels, position if index is None else index, epoch, position)

    def _check(self, step: int, found: Handed | None) -> tuple[Any, Int64s, Int64s | None]:
        if not isinstance(found, (tuple, list)) or len(found) not in (2, 3):
            raise self._wrong(
                step,
                "nothing"
                if found is None
                else f"{type(found).__name__}"
                + (f" of {len(found)}" if isinstance(found, (tuple, list)) else ""),
            )
        arrays = [np.asarray(part.cpu() if isinstance(part, Tensor) else part) for part in found]
        images = arrays[0]
        count = len(images) if images.ndim else 0
        few = self._fed.has_end and 0 < count < self._expected.batch_size  # the last ones
        count = count if few else self._expected.batch_size
        dtype = np.float32 if self.prepared else np.uint8
        if images.dtype != dtype or images.shape not in self._shapes(count):
            raise self._wrong(step, f"images {images.dtype} {list(images.shape)}")
        for name, numbers in zip(("labels", "index"), arrays[1:], strict=False):
            if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
                raise self._wrong(step, f"{name} {numbers.dtype} {list(numbers.shape)}")
        labels, *index = (numbers.astype(np.int64) for numbers in arrays[1:])
        outside = labels[(labels < 0) | (labels >= self._expected.classes)]
        if outside.size:
            raise self._wrong(step, f"the label {outside[0]}")
        if self.prepared:
            images = self._as_input(step, images)
        elif min(images.strides) < 0:  # turned round as NumPy can, which torch cannot take
            images = images.copy()
        return images, labels, index[0] if index else None

    def _shapes(self, count: int) -> list[tuple[int, ...]]:
        """Return the shapes that a batch of this many images may have."""
        if not self.prepared:
            return [(count, *self._expected.shape)]
        input_shape = self._expected.input_shape
        flat = [(count, int(np.prod(input_shape)))] if self._expected.flat else []
        return [(count, *input_shape), *flat]

    def _as_input(self, step: int, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return prepared images as [B, C, H, W], in the memory order of the transform's output."""
        if not np.isfinite(images).all():
            raise self._wrong(step, "a value that is not finite")
        channels, height, width = self._expected.input_shape
        if images.ndim == 4:
            rows = images.transpose(0, 2, 3, 1)
        else:
            rows = images.reshape(-1, height, width, channels)
        return np.ascontiguousarray(rows).transpose(0, 3, 1, 2)

    def _wrong(self, step: int, found: str) -> DataError:
        size, classes = self._expected.batch_size, self._expected.classes
        shapes = " or ".join(str(list(shape)) for shape in self._shapes(size))
        images = f"images {'float32' if self.prepared else 'uint8'} {shapes}"
        hint = ""
        if found == "the end of the feed" and not self._fed.has_end:
            hint = (
                ". Give one that does not end, fewer --steps, or Fed(source, ends=True), which "
                "ends the training there"
            )
        return DataError(
            f"feed: step {step}: expected ({images}, labels [{size}] of 0 to {classes - 1}), found "
            f"{found}{hint}"
        )


def from_arrays(arrays: Arrays, shuffle: Shuffle, batch_size: int) -> Callable[[int], Handed]:
    """Return a function of the step that feeds a set in memory, as the reference's MNIST does."""

    def feed(step: int) -> Handed:
        index, _, _ = shuffle.batch(step, batch_size)
        return arrays.images[index], arrays.labels[index], index

    return feed
