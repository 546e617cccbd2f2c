from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar, idx, npz, pixel_csv, tfrecord
from deepcnn.data.formats.csv_head import head_of
from deepcnn.data.formats.idx import IdxShard
from deepcnn.data.formats.npz import NpzShard
from deepcnn.data.formats.records import RecordShard
from deepcnn.data.formats.tfrecord import TFRecordShard
from deepcnn.data.shards import Blocks, Shard, ToWrite
from deepcnn.data.source import Source
from deepcnn.devices import Part
from deepcnn.errors import DataError
from deepcnn.inputs.fed import Expected, Fed, PythonFeed, from_arrays
from deepcnn.inputs.feeds import Batch, Feed, Preloaded, Streamed
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream

CPU = torch.device("cpu")
WHOLE = Part(0, 1, CPU)
SIZE = 48


@pytest.fixture(scope="module")
def files(cifar10_test: Arrays, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """900 real images as shards of each format, 400 + 300 + 200."""
    folder = tmp_path_factory.mktemp("shards")
    shards: dict[str, list[Shard]] = {n: [] for n in ("cifar", "tfrecord", "npz", "idx", "csv")}
    for i, (a, b) in enumerate(((0, 400), (400, 700), (700, 900))):
        images, labels = cifar10_test.images[a:b], cifar10_test.labels[a:b]
        path = folder / f"{i}"
        path.with_suffix(".bin").write_bytes(cifar.TEN.encode(images, labels))
        shards["cifar"].append(RecordShard(path.with_suffix(".bin"), cifar.TEN))
        path.with_suffix(".tfrecord").write_bytes(tfrecord.encode(images, labels))
        shards["tfrecord"].append(TFRecordShard(path.with_suffix(".tfrecord")))
        with path.with_suffix(".npz").open("wb") as file:
            part = ToWrite(b - a, (32, 32, 3), cifar10_test.classes, [(images, labels)])
            npz.write(file, part)
        shards["npz"].append(NpzShard(path.with_suffix(".npz")))
        with path.with_suffix(".csv").open("wb") as file:
            pixel_csv.write(file, ToWrite(b - a, (32, 32, 3), (), [(images, labels)]))
        shards["csv"].append(table(path.with_suffix(".csv")))
        path.with_suffix(".images").write_bytes(idx.encode_images(images))
        path.with_suffix(".labels").write_bytes(idx.encode_labels(labels))
        shards["idx"].append(IdxShard(path.with_suffix(".images"), path.with_suffix(".labels")))
    return {name: Source(tuple(s), cifar10_test.classes) for name, s in shards.items()}


def table(path: Path) -> Shard:
    head = head_of(path)
    assert head is not None
    found = pixel_csv.scan(path, head)
    return pixel_csv.PixelCsvShard(found, (), numbered=True)


def make(kind: str, source: Source, shuffle: Shuffle) -> Feed:
    if kind == "preloaded":
        return Preloaded(source.load(), shuffle, batch_size=SIZE)
    if kind == "fed":
        expected = Expected(
            batch_size=SIZE,
            shape=source.shape,
            input_shape=(3, 32, 32),
            classes=len(source.classes),
            examples=len(source),
        )
        return PythonFeed(Fed(from_arrays(source.load(), shuffle, SIZE)), expected)
    stream = Stream.extract(source.shards, shuffle, threads=kind == "queued").shuffle()
    return Streamed(stream, batch_size=SIZE)


def bytes_of(batch: Batch) -> tuple[bytes, ...]:
    return tuple(tensor.numpy().tobytes() for tensor in dataclasses.astuple(batch))


@pytest.mark.parametrize("buffer", [1, 250, 900])
@pytest.mark.parametrize("form", ["cifar", "tfrecord", "npz", "idx", "csv"])
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


def test_a_full_queue_gives_the_permutation_of_a_preloaded_set(files: dict[str, Source]) -> None:
    source = files["cifar"]
    preloaded = make("preloaded", source, Shuffle.full(2, len(source)))
    shuffle = Shuffle.of(source.shards, seed=2, readers=16, buffer=len(source))
    with closing(make("queued", source, shuffle)) as queued:
        for step in range(20):
            assert bytes_of(preloaded.batch(step, WHOLE)) == bytes_of(queued.batch(step, WHOLE))


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


def limited(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False
    )


LIMITED = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from deepcnn.inputs.feeds import Streamed
from deepcnn.data.formats.cifar import TEN
from deepcnn.data.formats.records import RecordShard
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.stream import Stream
from deepcnn.devices import Part

KIND = {kind!r}
shards = [RecordShard(path, TEN) for path in sorted(Path(sys.argv[1]).glob("*.bin"))]
n = sum(map(len, shards))
data = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmData" in line)
LIMIT = data * 1024 + 600_000_000  # much of it for the stacks of threads
resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
assert n * 3072 > 1.5 * LIMIT, (n * 3072, LIMIT)
try:
    bytearray(n * 3072)
except MemoryError:
    pass
else:
    raise SystemExit("the limit does not bite")
shuffle = Shuffle.of(shards, seed=0, readers=16, buffer=5000)
stream = Stream.extract(shards, shuffle, threads=KIND == "queued").shuffle()
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
    for i in range(14):
        for k in range(1, 6):
            (tmp_path / f"{i:02}-{k}.bin").hardlink_to(cifar10_folder / f"data_batch_{k}.bin")
    done = limited(LIMITED.format(kind=kind), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    seen, n = map(int, done.stdout.split())
    assert n == 700_000
    assert seen == n - n % 128
