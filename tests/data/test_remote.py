"""Shards elsewhere, from a server that is slow, breaks off and lies about lengths."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from deepcnn.data import web
from deepcnn.data.convert import convert
from deepcnn.data.dataset import Dataset
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.source import Source
from deepcnn.errors import ConfigError, DataError, StorageError
from deepcnn.inputs.stream import Stream
from deepcnn.settings import DataSpec
from tests.helpers import elsewhere
from tests.helpers.conversion import assert_same, load, made, splits_of, store_npz
from tests.helpers.elsewhere import Answer, Server

SHARDS = 6
FIRST = f"train-00000-of-{SHARDS:05}.tfrecords"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("elsewhere")
    source = store_npz(place / "source", splits_of(made(96, 8, 6, 3), made(11, 8, 6, 3)))
    convert(source, place / "shards", "tfrecord", shards=SHARDS)
    return place / "shards"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "WAITS", (0.0, 0.01))
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with elsewhere.serving(folder) as found:
        yield found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def opened(server: Server, tmp_path: Path, **settings: Any) -> Dataset:
    return open_dataset(DataSpec(data=server.url, data_dir=str(tmp_path), **settings))


def bytes_of(cache: Path) -> int:
    with FileLock(cache / ".lock"):
        return sum(path.stat().st_size for path in cache.iterdir())


def test_a_folder_elsewhere_is_the_folder_that_lies_there(
    folder: Path, server: Server, tmp_path: Path
) -> None:
    dataset = opened(server, tmp_path)
    found = {split: dataset.split(split).load() for split in dataset.own_splits}
    assert_same(found, load(folder))
    here = open_dataset(folder)
    assert dataset.content("train") == here.content("train")
    assert server.asked == {
        path.name: 1 for path in folder.iterdir() if path.name != "classes.json"
    }
    names = {f"{entry['sha256']}.tfrecords" for entry in entries(folder)}
    assert {path.name for path in (tmp_path / "shards").iterdir()} - {".lock"} == names


def entries(folder: Path) -> list[dict[str, Any]]:
    index = json.loads((folder / "index.json").read_bytes())
    return [entry for shards in index["splits"].values() for entry in shards]


def test_a_pass_fetches_each_shard_once_into_a_cache_that_keeps_its_limit(
    folder: Path, server: Server, tmp_path: Path, cache: Path
) -> None:
    sizes = [entry["bytes"] for entry in entries(folder)]
    limit = 3 * max(sizes)
    source = opened(server, tmp_path, cache_gigabytes=limit / 1e9).split("train")
    for passes in (1, 2):
        most = 0
        for _ in source.blocks(8):
            most = max(most, bytes_of(cache))
        assert 0 < most <= limit
        assert server.asked[FIRST] == passes
        assert sum(n for name, n in server.asked.items() if "train" in name) == passes * SHARDS


def test_the_order_of_a_stream_is_that_of_the_files(
    folder: Path, server: Server, tmp_path: Path
) -> None:
    """A cache of three shards for two readers: each fetches one ahead, where there is room."""
    limit = 3 * max(entry["bytes"] for entry in entries(folder)) / 1e9
    there = opened(server, tmp_path, cache_gigabytes=limit).split("train")
    here = open_dataset(folder).split("train")
    streams = [Stream.of(s, readers=2, buffer=20).shuffle().repeat(2) for s in (there, here)]
    found, expected = ([*stream.batch(7, first_step=3)] for stream in streams)
    assert len(found) == len(expected) == 192 // 7 + 1 - 3
    for one, other in zip(found, expected, strict=True):
        assert one.images.tobytes() == other.images.tobytes()
        assert one.index.tolist() == other.index.tolist()
        assert one.labels.tolist() == other.labels.tolist()


def test_the_next_shard_is_fetched_while_one_is_read(server: Server, tmp_path: Path) -> None:
    blocks = opened(server, tmp_path).split("train").blocks(4)
    next(blocks)
    second = FIRST.replace("00000", "00001", 1)
    for _ in range(200):
        if server.asked[second]:
            break
        time.sleep(0.01)
    assert server.asked[second] == 1
    assert server.asked[FIRST.replace("00000", "00002", 1)] == 0
    blocks.close()


def test_a_cache_that_is_too_small_for_what_is_read_at_once_says_so(
    folder: Path, server: Server, tmp_path: Path
) -> None:
    size = max(entry["bytes"] for entry in entries(folder))
    stream = Stream.of(
        opened(server, tmp_path, cache_gigabytes=1.5 * size / 1e9).split("train"), readers=2
    )
    with pytest.raises(DataError, match=r"expected room for .* --cache-gigabytes; .*--readers"):
        list(stream.repeat(1).batch(8))


BROKEN: list[tuple[list[Answer], str]] = [
    ([elsewhere.slow], "slow"),
    ([elsewhere.breaking_off], "broken off"),
    ([elsewhere.breaking_off, elsewhere.without_ranges], "broken off, without ranges"),
    ([elsewhere.declaring_less], "declares less"),
    ([elsewhere.declaring_more], "declares more"),
    ([elsewhere.endless], "endless"),
    ([elsewhere.other_bytes], "other bytes"),
    ([elsewhere.busy, elsewhere.busy], "busy"),
]


@pytest.mark.parametrize(("answers", "name"), BROKEN, ids=[name for _, name in BROKEN])
def test_what_goes_wrong_once_is_tried_again(
    folder: Path, server: Server, tmp_path: Path, answers: list[Answer], name: str
) -> None:
    server.answers[FIRST] = [*answers]
    assert_same(
        {"train": opened(server, tmp_path).split("train").load()},
        {"train": load_dataset(folder, "train")},
    )
    good = answers[-1] in (elsewhere.slow, elsewhere.without_ranges)
    assert server.asked[FIRST] == len(answers) + (not good)
    half = next(entry["bytes"] for entry in entries(folder) if entry["file"] == FIRST) // 2
    assert (f"bytes={half}-" in server.ranges) == name.startswith("broken")


LIES: list[tuple[Answer, str]] = [
    (elsewhere.breaking_off, r"in 3 attempts.*expected [\d,]+ bytes, the server offers"),
    (elsewhere.declaring_less, r"expected [\d,]+ bytes, the server offers [\d,]+\."),
    (elsewhere.declaring_more, r"expected [\d,]+ bytes, the server offers [\d,]+\."),
    (elsewhere.endless, r"expected [\d,]+ bytes, the server sends more"),
    (elsewhere.other_bytes, r"expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"),
    (elsewhere.busy, r"the server answers 503 Service Unavailable"),
    (elsewhere.silent, r"the server said nothing for 0 seconds"),
    (elsewhere.trickling, r"it is not there after 0 seconds|the connection ended after"),
]


@pytest.mark.parametrize(("answer", "message"), LIES, ids=[a.__name__ for a, _ in LIES])
def test_what_goes_wrong_every_time_is_one_clear_error_and_leaves_nothing(
    server: Server,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    message: str,
) -> None:
    monkeypatch.setattr(web, "SILENCE", 0.2)
    monkeypatch.setattr(web, "PATIENCE", 0.25)
    monkeypatch.setattr(web, "LEAST_SPEED", 1e9)
    source = opened(server, tmp_path).split("train")
    server.answers[FIRST] = [answer] * 3
    if answer is elsewhere.breaking_off:  # and then a server that takes no ranges, and lies
        server.answers[FIRST][1:] = [elsewhere.declaring_less] * 2
    began = time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        next(source.blocks(4))
    assert time.monotonic() - began < 3
    assert f"{server.url}{FIRST}: " in str(caught.value)
    assert "copy the folder" in str(caught.value)
    digest = next(e["sha256"] for e in entries(server.folder) if e["file"] == FIRST)
    assert not [path.name for path in cache.iterdir() if digest in path.name]


def test_an_endless_answer_is_cut_off_in_bounded_memory(server: Server, tmp_path: Path) -> None:
    server.answers["index.json"] = [elsewhere.endless]
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"index\.json: expected at most 16,777,216 bytes"):
            opened(server, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "place",
    ["file:///etc/passwd", "ftp://127.0.0.1/x?token=secret", "http://10.0.0.1/?token=secret", "/"],
)
def test_no_redirect_leads_to_files_or_to_plain_http_or_in_a_circle(
    server: Server, tmp_path: Path, place: str
) -> None:
    place = server.url + FIRST if place == "/" else place
    source = opened(server, tmp_path).split("train")
    server.answers[FIRST] = [elsewhere.leading_to(place)] * 20
    with pytest.raises(DataError, match=r"leads elsewhere than to https, or in a circle") as caught:
        source.load()
    assert "secret" not in str(caught.value)
    assert "passwd" not in str(caught.value)


def test_a_redirect_on_this_machine_is_followed(server: Server, tmp_path: Path) -> None:
    second = FIRST.replace("00000", "00001", 1)
    server.answers[FIRST] = [elsewhere.leading_to(server.url + FIRST)]
    assert len(opened(server, tmp_path).split("train").load()) == 96
    assert (server.asked[FIRST], server.asked[second]) == (2, 1)


def test_what_is_not_there_is_told_at_once(server: Server, tmp_path: Path) -> None:
    spec = DataSpec(data=f"{server.url}nowhere", data_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"nowhere/index\.json: the server answers 404 Not Found"):
        open_dataset(spec)
    assert server.asked == {"nowhere/index.json": 1}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/x", "http://example.org, where anybody on the way may change it"),
        ("file:///etc", "file:, which is not read"),
        ("s3://bucket/x", "s3:, which is not read"),
        ("https:///x", "https:, which is not read"),
        ("https://example.org/x?key=secret", "a question mark or a # in an address of example.org"),
        ("https://example.org:port/x", "an address that cannot be read"),
        ("https://example.org/a b", "an address with a blank"),
    ],
)
def test_other_addresses_are_refused(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(url)
    assert "secret" not in str(caught.value)


def test_an_address_with_a_password_is_no_setting_and_is_not_shown() -> None:
    for url in ("https://me:secret@example.org/x", "https://secret@example.org/"):
        with pytest.raises(ConfigError, match="without a user or a password") as caught:
            DataSpec(data=url)
        assert "secret" not in str(caught.value)
        with pytest.raises(DataError, match="a user or a password") as other:
            web.check(url)
        assert "secret" not in str(other.value)


INDICES: list[tuple[dict[str, Any], str]] = [
    ({"format": "zip"}, "expected the format 'tfrecord'"),
    ({"classes": ["a", "a"]}, "classes: expected a list of names that differ"),
    ({"classes": ["\ud800"]}, "surrogates not allowed"),
    ({"shape": [8, 6]}, "shape: expected height"),
    ({"shape": [65535, 65535, 3]}, "expected smaller images"),
    ({"splits": {}}, "splits: expected train"),
    ({"splits": {"train": []}}, "at least one"),
    ({"file": "../x.tfrecords"}, "expected the name of a .tfrecords file"),
    ({"format": "parquet"}, "expected the name of a .parquet file"),
    ({"compressed": 1}, "compressed: expected true or false, found 1"),
    ({"format": "tfrecord of pictures", "shape": [8, 6, 4]}, "pictures of 1 or 3 channels"),
    ({"file": "/etc/passwd"}, "expected the name of a .tfrecords file"),
    ({"bytes": -1}, "bytes: expected a whole number from 1"),
    ({"bytes": 10**18}, "bytes: expected a whole number from 1"),
    ({"examples": 10**10, "bytes": 2 * 10**10}, "bytes: expected a whole number from 1"),
    ({"examples": True}, "examples: expected a whole number from 1"),
    ({"sha256": "0" * 63}, "sha256: expected 64 hexadecimal digits"),
]


@pytest.mark.parametrize(("changes", "message"), INDICES, ids=[m for _, m in INDICES])
def test_an_index_of_another_kind_is_one_clear_error(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    index = json.loads((folder / "index.json").read_bytes())
    for name, value in changes.items():
        (index if name in index else index["splits"]["train"][0])[name] = value
    served = tmp_path / "served"
    served.mkdir()
    (served / "index.json").write_text(json.dumps(index))
    with elsewhere.serving(served) as server, pytest.raises(DataError, match=message) as caught:
        opened(server, tmp_path)
    assert f"{server.url}index.json: expected the list of shards" in str(caught.value)


def test_an_index_that_counts_wrongly_is_found_out(folder: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(folder, served)
    index = json.loads((served / "index.json").read_bytes())
    index["splits"]["train"][0]["examples"] += 1
    (served / "index.json").write_text(json.dumps(index))
    with elsewhere.serving(served) as server:
        source = opened(server, tmp_path).split("train")
        with pytest.raises(DataError, match=r"expected 17 images of 8×6×3 as index\.json says"):
            source.load()


def test_two_trainings_that_share_a_cache_fetch_a_shard_once(
    server: Server, tmp_path: Path
) -> None:
    server.answers = {entry["file"]: [elsewhere.slow] * 2 for entry in entries(server.folder)}
    sources = [opened(server, tmp_path).split("train") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(Source.load, sources)
    assert np.array_equal(one.images, other.images)
    assert [n for name, n in server.asked.items() if "train" in name] == [1] * SHARDS


def test_a_damaged_file_of_the_cache_is_fetched_again(
    folder: Path, server: Server, tmp_path: Path, cache: Path
) -> None:
    opened(server, tmp_path).split("train").load()
    for path in cache.glob("*.tfrecords"):
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    found = opened(server, tmp_path).split("train").load()
    assert_same({"train": found}, {"train": load_dataset(folder, "train")})
    assert server.asked[FIRST] == 2


def test_whoever_is_killed_while_fetching_leaves_no_room_taken(
    folder: Path, server: Server, tmp_path: Path, cache: Path
) -> None:
    cache.mkdir()
    size = max(entry["bytes"] for entry in entries(folder))
    (cache / f".{'0' * 64}.tfrecords.0123abcd.tmp").write_bytes(bytes(size))
    limit = 1.2 * size / 1e9
    source = opened(server, tmp_path, cache_gigabytes=limit).split("train")
    assert sum(len(labels) for _, labels in source.blocks(16)) == 96
    assert len({path.name for path in cache.iterdir()} - {".lock"}) == 1


def test_a_cache_that_cannot_be_written_is_one_clear_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("in the way")
    source = opened(server, tmp_path).split("train")
    with pytest.raises(StorageError, match=r"shards.*cannot be written"):
        source.load()


def test_a_held_out_part_is_the_same_and_is_fetched_ahead_too(
    folder: Path, server: Server, tmp_path: Path
) -> None:
    there = opened(server, tmp_path, validation_size=20)
    here = open_dataset(dataclasses.replace(there.spec, data=str(folder)))
    for split in ("train", "validation"):
        found, expected = there.split(split).load(), here.split(split).load()
        assert np.array_equal(found.images, expected.images)
        assert np.array_equal(found.labels, expected.labels)
