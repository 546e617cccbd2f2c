from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar, idx, npz, tfrecord
from deepcnn.data.formats.cifar import CifarShard
from deepcnn.data.formats.idx import IdxShard
from deepcnn.data.formats.npz import NpzShard
from deepcnn.data.formats.tfrecord import TFRecordShard
from deepcnn.data.shards import Blocks, Shard
from deepcnn.data.source import Source, in_memory
from deepcnn.devices import Part
from deepcnn.errors import DataError
from deepcnn.events import Event, Filling
from deepcnn.inputs.feeds import Batch, Fed, Feed, Preloaded, Queued, Streamed, from_arrays
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Prefetch, Stream

CPU = torch.device("cpu")
WHOLE = Part(0, 1, CPU)
SIZE = 48


@pytest.fixture(scope="module")
def files(cifar10_test: Arrays, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """900 real images as shards of each format, 400 + 300 + 200."""
    folder = tmp_path_factory.mktemp("shards")
    shards: dict[str, list[Shard]] = {"cifar": [], "tfrecord": [], "npz": [], "idx": []}
    for i, (a, b) in enumerate(((0, 400), (400, 700), (700, 900))):
        images, labels = cifar10_test.images[a:b], cifar10_test.labels[a:b]
        path = folder / f"{i}"
        path.with_suffix(".bin").write_bytes(cifar.encode(images, labels))
        shards["cifar"].append(CifarShard(path.with_suffix(".bin")))
        path.with_suffix(".tfrecord").write_bytes(tfrecord.encode(images, labels))
        shards["tfrecord"].append(TFRecordShard(path.with_suffix(".tfrecord")))
        with path.with_suffix(".npz").open("wb") as file:
            npz.write(
                file,
                count=b - a,
                shape=(32, 32, 3),
                blocks=[(images, labels)],
                classes=cifar10_test.classes,
            )
        shards["npz"].append(NpzShard(path.with_suffix(".npz")))
        path.with_suffix(".images").write_bytes(idx.encode_images(images))
        path.with_suffix(".labels").write_bytes(idx.encode_labels(labels))
        shards["idx"].append(IdxShard(path.with_suffix(".images"), path.with_suffix(".labels")))
    return {name: Source(tuple(s), cifar10_test.classes) for name, s in shards.items()}


def make(kind: str, source: Source, shuffle: Shuffle) -> Feed:
    if kind == "preloaded":
        return Preloaded(source.load(), shuffle, batch_size=SIZE)
    if kind == "fed":
        return Fed(
            from_arrays(source.load(), shuffle, SIZE),
            batch_size=SIZE,
            shape=source.shape,
            classes=len(source.classes),
            examples=len(source),
        )
    if kind == "queued":
        stream = Stream.extract(source.shards, shuffle, threads=True).shuffle()
        return Queued(stream, examples_in_queue=0, batch_size=SIZE)
    stream = Stream.extract(source.shards, shuffle).shuffle()
    return Streamed(stream, batch_size=SIZE)


def bytes_of(batch: Batch) -> tuple[bytes, ...]:
    return tuple(tensor.numpy().tobytes() for tensor in dataclasses.astuple(batch))


@pytest.mark.parametrize("buffer", [1, 250, 900])
@pytest.mark.parametrize("form", ["cifar", "tfrecord", "npz", "idx"])
def test_the_four_feeds_give_the_same_bytes(
    files: dict[str, Source], form: str, buffer: int
) -> None:
    source = files[form]
    shuffle = dataclasses.replace(
        Shuffle.of(source.shards, seed=11, readers=5, buffer=buffer), block=30
    )
    steps = range(45)  # more than two epochs
    found = {}
    for kind in ("preloaded", "fed", "queued", "streamed"):
        with closing(make(kind, source, shuffle)) as feed:
            found[kind] = [bytes_of(feed.batch(step, WHOLE)) for step in steps]
            assert bytes_of(feed.batch(20, WHOLE)) == found[kind][20], "a step that is not the next"
            assert bytes_of(feed.batch(21, WHOLE)) == found[kind][21]
            for step in (22, 23):
                parts = [bytes_of(feed.batch(step, Part(i, 3, CPU))) for i in range(3)]
                joined = tuple(b"".join(columns) for columns in zip(*parts, strict=True))
                assert joined == found[kind][step], "parts are those of the batch"
    assert found["preloaded"] == found["fed"] == found["queued"] == found["streamed"]
    batch = make("preloaded", source, shuffle).batch(7, WHOLE)
    everything = source.load()
    assert np.array_equal(batch.images, everything.images[batch.index])
    assert np.array_equal(batch.labels, everything.labels[batch.index])


def test_a_set_in_memory_is_loaded_without_a_copy(files: dict[str, Source]) -> None:
    arrays = files["cifar"].load()
    again = in_memory(arrays).load()
    assert again.images is arrays.images
    assert again.labels is arrays.labels
    assert again.classes == arrays.classes


def test_a_full_queue_gives_the_permutation_of_a_preloaded_set(files: dict[str, Source]) -> None:
    source = files["cifar"]
    preloaded = make("preloaded", source, Shuffle.full(2, len(source)))
    shuffle = Shuffle.of(source.shards, seed=2, readers=16, buffer=len(source))
    with closing(make("queued", source, shuffle)) as queued:
        for step in range(20):
            assert bytes_of(preloaded.batch(step, WHOLE)) == bytes_of(queued.batch(step, WHOLE))


def test_the_queue_says_that_it_fills(files: dict[str, Source]) -> None:
    source = files["cifar"]
    heard: list[Event] = []
    shuffle = Shuffle.of(source.shards, seed=2, readers=16, buffer=360 + SIZE)
    stream = Stream.extract(source.shards, shuffle, threads=True).shuffle()
    with closing(Queued(stream, examples_in_queue=360, batch_size=SIZE, emit=heard.append)) as feed:
        feed.batch(0, WHOLE)
        feed.batch(1, WHOLE)
    assert heard == [Filling(360)]


def test_steps_compose(files: dict[str, Source]) -> None:
    source = files["cifar"]
    shuffle = Shuffle.of(source.shards, seed=0, readers=2, buffer=100)
    plain = Stream.extract(source.shards, shuffle).shuffle()
    mapped = (
        Stream.extract(source.shards, shuffle).map(lambda b: (255 - b[0], b[1] + 100)).shuffle()
    )
    with closing(plain.batch(50, first_step=3)) as a, closing(mapped.batch(50, first_step=3)) as b:
        one, other = next(a), next(b)
    assert np.array_equal(255 - one.images, other.images)
    assert np.array_equal(one.labels + 100, other.labels)
    assert np.array_equal(one.index, other.index)


@dataclasses.dataclass
class Broken:
    """A shard whose reading fails, or waits, from an example on."""

    shard: Shard
    fails_at: int
    name: str = "broken"
    seekable: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.shard.shape

    def __len__(self) -> int:
        return len(self.shard)

    def blocks(self, start: int, stop: int, size: int) -> Blocks:
        for at in range(start, stop, size):
            if at >= self.fails_at:
                raise DataError("broken: offset 77: expected more")
            yield from self.shard.blocks(at, min(at + size, stop), size)


def threads_of_feeds() -> list[str]:
    return [t.name for t in threading.enumerate() if t is not threading.main_thread()]


@pytest.mark.parametrize("kind", ["queued", "streamed"])
def test_the_first_error_stops_all_threads_and_is_raised_in_the_trainer(
    files: dict[str, Source], kind: str
) -> None:
    good = files["cifar"].shards
    shards = (good[0], Broken(good[1], 200), good[2])
    source = Source(shards, files["cifar"].classes)
    shuffle = Shuffle.of(shards, seed=0, readers=8, buffer=50)
    with closing(make(kind, source, shuffle)) as feed:
        with pytest.raises(DataError, match="offset 77"):  # noqa: PT012
            for step in range(100):
                feed.batch(step, WHOLE)
        deadline = time.monotonic() + 5
        while any("reader" in name for name in threads_of_feeds()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not any("deepcnn" in name or "reader" in name for name in threads_of_feeds())


@pytest.mark.parametrize("kind", ["queued", "streamed"])
def test_closing_leaves_no_thread(files: dict[str, Source], kind: str) -> None:
    source = files["cifar"]
    before = threads_of_feeds()
    feed = make(kind, source, Shuffle.of(source.shards, seed=0, readers=16, buffer=200))
    feed.batch(0, WHOLE)
    feed.close()
    assert threads_of_feeds() == before
    feed.close()


def test_sixteen_readers_are_at_work_at_once(files: dict[str, Source]) -> None:
    meeting = threading.Barrier(16, timeout=10)

    @dataclasses.dataclass
    class Meeting(Broken):
        def blocks(self, start: int, stop: int, size: int) -> Blocks:
            meeting.wait()  # opens only if all sixteen are here
            yield from self.shard.blocks(start, stop, size)

    shards = (Meeting(files["cifar"].shards[0], 0),)
    shuffle = Shuffle.of(shards, seed=0, readers=16, buffer=10)
    with closing(make("queued", Source(shards, ("a",) * 10), shuffle)) as feed:
        assert feed.batch(0, WHOLE).images.shape == (SIZE, 32, 32, 3)


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


def limited(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False
    )


LIMITED = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from deepcnn.inputs.feeds import Queued, Streamed
from deepcnn.data.formats.cifar import CifarShard
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from deepcnn.devices import Part

KIND = {kind!r}
shards = [CifarShard(path) for path in sorted(Path(sys.argv[1]).glob("*.bin"))]
n = sum(map(len, shards))
data = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmData" in line)
LIMIT = data * 1024 + 600_000_000  # much of it for the stacks of threads
resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
assert n * 3072 > 2 * LIMIT, (n * 3072, LIMIT)
try:
    bytearray(n * 3072)
except MemoryError:
    pass
else:
    raise SystemExit("the limit does not bite")
shuffle = Shuffle.of(shards, seed=0, readers=16, buffer=5000)
stream = Stream.extract(shards, shuffle, threads=KIND == "queued").shuffle()
if KIND == "queued":
    feed = Queued(stream, examples_in_queue=4872, batch_size=128)
else:
    feed = Streamed(stream, batch_size=128)
whole = Part(0, 1, torch.device("cpu"))
total = 0
seen = set()
for step in range(n // 128):
    batch = feed.batch(step, whole)
    total += int(batch.images[:, 0, 0, 0].sum())
    seen.update(batch.index.tolist())
feed.close()
print(len(seen), n)
"""


@pytest.mark.parametrize("kind", ["queued", "streamed"])
def test_files_larger_than_the_memory_limit(
    cifar10_folder: Path, tmp_path: Path, kind: str
) -> None:
    for i in range(24):
        for k in range(1, 6):
            (tmp_path / f"{i:02}-{k}.bin").hardlink_to(cifar10_folder / f"data_batch_{k}.bin")
    done = limited(LIMITED.format(kind=kind), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    seen, n = map(int, done.stdout.split())
    assert n == 1_200_000
    assert seen == n - n % 128
