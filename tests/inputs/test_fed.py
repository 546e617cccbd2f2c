from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.devices import Part
from deepcnn.errors import DataError, RunError
from deepcnn.inputs.fed import Expected, Fed, PythonFeed
from deepcnn.inputs.stream import Stream
from tests.helpers.tiny import Stateful

WHOLE = Part(0, 1, torch.device("cpu"))


class Ending(Stateful):
    """An iterator that can tell where it is, and ends."""

    def __next__(self) -> Any:
        if self.state_dict()["at"] >= len(self._items):
            raise StopIteration
        return super().__next__()


EXPECTED = Expected(
    batch_size=4, shape=(2, 3, 1), input_shape=(1, 2, 2), classes=3, examples=10, flat=True
)


def fed(source: Any, expected: Expected = EXPECTED, **settings: bool) -> PythonFeed:
    return PythonFeed(Fed(source, **settings), expected)


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
    with pytest.raises(DataError, match=r"step 2: .*found the end of the feed"):
        feed.batch(2, WHOLE)
    with pytest.raises(DataError, match=r"step 0: .*found the end of the feed"):
        fed([]).batch(0, WHOLE)


READY = (np.arange(16, dtype=np.float32).reshape(4, 1, 2, 2) - 7, GOOD[1])


def test_prepared_images_are_handed_on_as_they_are_in_rows_of_pixels_too() -> None:
    flat = READY[0].reshape(4, 4)
    for images in (READY[0], flat, torch.from_numpy(READY[0]), torch.from_numpy(flat)):
        feed = fed(lambda _, images=images: (images, READY[1]), prepared=True)
        batch = feed.batch(0, WHOLE)
        assert feed.prepared
        assert np.array_equal(batch.images.numpy(), READY[0])
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_rows_of_pixels_have_their_channels_last_as_the_reference_has_them() -> None:
    expected = dataclasses.replace(EXPECTED, input_shape=(3, 2, 2))
    rows = np.arange(48, dtype=np.float32).reshape(4, 12)
    batch = fed(lambda _: (rows, GOOD[1]), expected, prepared=True).batch(0, WHOLE)
    assert np.array_equal(batch.images.numpy(), rows.reshape(4, 2, 2, 3).transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("images", "flat", "found"),
    [
        (GOOD[0], True, r"images uint8 \[4, 2, 3, 1\]"),
        (READY[0].astype(np.float64), True, r"images float64 \[4, 1, 2, 2\]"),
        (READY[0].transpose(0, 2, 3, 1), True, r"images float32 \[4, 2, 2, 1\]"),
        (READY[0].reshape(4, 4), False, r"images float32 \[4, 4\]"),
        (np.full((4, 1, 2, 2), np.nan, np.float32), True, "a value that is not finite"),
    ],
)
def test_what_is_not_the_networks_input_is_no_prepared_image(
    images: Any, flat: bool, found: str
) -> None:
    rows = r" or \[4, 4\]" if flat else ""
    feed = fed(lambda _: (images, GOOD[1]), dataclasses.replace(EXPECTED, flat=flat), prepared=True)
    with pytest.raises(
        DataError, match=rf"expected \(images float32 \[4, 1, 2, 2\]{rows}, .*, found {found}"
    ):
        feed.batch(0, WHOLE)


SMALL = (GOOD[0][:3], GOOD[1][:3])  # too few for a batch


def of_a_function(items: list[Any]) -> Any:
    return lambda step: items[step] if step < len(items) else None


@pytest.mark.parametrize("make", [iter, list, of_a_function, Ending])
@pytest.mark.parametrize("rest", [[], [SMALL]])
def test_a_feed_that_may_end_tells_its_end_with_its_last_batch(
    make: Callable[[Any], Any], rest: list[Any]
) -> None:
    feed = fed(make([GOOD, GOOD, GOOD, *rest]), ends=True)
    feed.look(0)
    known = []
    for step in range(3):
        assert feed.batch(step, WHOLE).labels.tolist() == GOOD[1].tolist()
        assert len(feed.batch(step, Part(1, 2, torch.device("cpu"))).labels) == 2
        known.append(feed.ends)
    assert known == [None, None, 3]
    with pytest.raises(DataError, match=r"step 3: .*found the end of the feed$"):
        feed.batch(3, WHOLE)


def test_a_feed_that_may_end_has_a_first_batch_and_whole_ones_before_the_last() -> None:
    sources: tuple[Any, ...] = (iter([]), of_a_function([]), [SMALL])
    for source in sources:
        with pytest.raises(DataError, match=r"step 0: .*found the end of the feed$"):
            fed(source, ends=True).look(0)
    feed = fed(of_a_function([GOOD, None, GOOD]))
    feed.batch(0, WHOLE)
    with pytest.raises(DataError, match=r"step 1: .*found nothing$"):
        feed.batch(1, WHOLE)


def test_the_state_of_a_source_that_is_looked_ahead_of_is_that_before_the_next_step() -> None:
    items = [(GOOD[0], np.full(4, i)) for i in (0, 1, 2, 0, 1, 2, 0)]
    feed = fed(Ending(items), ends=True)
    feed.look(0)
    for step in range(4):
        feed.batch(step, WHOLE)
    state = feed.state(4)
    again = fed(Ending(items), ends=True)
    again.restore("stateful, ends", json.loads(json.dumps(state)))
    again.look(4)
    assert [again.batch(step, WHOLE).labels[0].item() for step in (4, 5, 6)] == [1, 2, 0]
    assert again.ends == 7


@pytest.mark.parametrize(
    ("before", "settings", "message"),
    [
        ("stateful", {"ends": True}, "expected a stateful source, .* found stateful, ends"),
        ("stateful, prepared", {}, "expected a stateful, prepared source, .* found stateful$"),
        ("iterator, ends", {"ends": True}, "nobody knows where it stood"),
    ],
)
def test_a_run_goes_on_only_with_what_it_was_fed_by(
    before: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        fed(Ending([GOOD]), **settings).restore(before, None)


def over(count: int) -> Stream:
    """A pipeline over so many examples."""
    images = np.arange(count * 6).astype(np.uint8).reshape(count, 2, 3, 1)
    source = in_memory(Arrays(images, np.arange(count) % 3, ("a", "b", "c")))
    return Stream.of(source, seed=2, readers=3, buffer=5)


def test_a_stream_of_known_steps_resumes_from_its_step_and_any_other_from_a_state() -> None:
    plain, filtered = over(10).shuffle(), over(10).filter(lambda b: b[1] > 0).shuffle()
    assert fed(plain).fed_by == "function"
    assert fed(filtered).fed_by == "stateful"
    assert fed(filtered.repeat(2)).fed_by == "stateful, ends"
    with closing(fed(plain)) as whole, closing(fed(plain)) as part:
        for step in range(3):
            whole.batch(step, WHOLE)
        assert torch.equal(whole.batch(3, WHOLE).images, part.batch(3, WHOLE).images)
    feed, again = fed(filtered.repeat(3)), fed(filtered.repeat(3))
    with closing(feed), closing(again):
        feed.look(0)
        for step in range(2):
            feed.batch(step, WHOLE)
        again.restore("stateful, ends", feed.state(2))
        for step in range(2, 4):
            one, other = feed.batch(step, WHOLE), again.batch(step, WHOLE)
            for name in ("images", "labels", "index", "epoch", "position"):
                assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert one.epoch.tolist() == [2, 2, 2, 2], "of the stream, whose epochs are of six"
        assert one.position.tolist() == [0, 1, 2, 3]
        assert feed.ends == again.ends == 4, "two of eighteen are left"
