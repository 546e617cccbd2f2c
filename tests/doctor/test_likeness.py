"""Near duplicates among thousands of real pictures, and alignment against known maps."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.doctor import alignment, duplicates, likeness
from tests.helpers.shards import FASHION_MNIST


def changed(image: NDArray[np.uint8], how: int) -> NDArray[np.uint8]:
    """Return a picture shifted, mirrored, enlarged or in other light, by Pillow."""
    picture = Image.fromarray(image)
    if how == 0:
        return np.pad(image, ((1, 0), (0, 2), (0, 0)), "edge")[:32, 2:]
    if how == 1:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif how == 2:
        picture = picture.resize((32, 32), Image.Resampling.BICUBIC, (2, 2, 30, 29))
    else:
        picture = picture.point([int(0.8 * v + 30) for v in range(256)] * 3)
    return np.asarray(picture)


def test_changed_pictures_are_found_among_thousands(cifar10_test: Arrays) -> None:
    count = likeness.ENOUGH
    originals = range(7, count, count // 40)
    planted = [changed(cifar10_test.images[i], k % 4) for k, i in enumerate(originals)]
    images = np.concatenate([cifar10_test.images[:count], np.stack(planted)])
    thumbs = likeness.small(images)
    raw = likeness.describe(thumbs), likeness.describe(thumbs[:, :, ::-1])
    pairs, flipped = likeness.candidates(*raw)
    found = {(a, b, f) for (a, b), f in zip(pairs.tolist(), flipped.tolist(), strict=True)}
    hits = [(i, count + k, k % 4 == 1) in found for k, i in enumerate(originals)]
    assert np.mean(hits) >= 0.95
    # Of all n (n - 1) pairs only a few for each picture are looked at.
    assert len(pairs) < 16 * len(images)


def test_the_map_between_two_pictures_is_found(cifar10_test: Arrays) -> None:
    images = likeness.small(cifar10_test.images[:20])
    inner = (3, 2, 30, 29)
    other = np.stack(
        [
            np.asarray(Image.fromarray(i).resize((32, 32), Image.Resampling.BICUBIC, inner))
            for i in images
        ]
    )
    first, second = other.astype(np.float32), images.astype(np.float32)
    maps = alignment.align(alignment.blurred(first, 1), alignment.blurred(second, 1), 14, None)
    # What is at p of 32 pixels in the enlarged picture is at 27 / 32 p + 2 in the other one.
    scale = 27 / 32
    expected = np.array([[scale, 0, scale + 2 / 16 - 1], [0, scale, scale + 3 / 16 - 1]])
    middle = np.median(maps, 0)
    np.testing.assert_allclose(middle, expected, atol=0.01)
    near, maps = alignment.rough(alignment.halved(other), alignment.halved(images))
    assert (near > duplicates.LEAST_ROUGH).mean() >= 0.9
    assert (alignment.similarity(first, second, maps) > duplicates.LEAST).mean() >= 0.9
    assert (alignment.similarity(first, np.roll(second, 1, 0), maps) < 0.5).all()


def test_correlation_is_that_of_numpy(cifar10_test: Arrays) -> None:
    a, b = likeness.small(cifar10_test.images[:2]).astype(np.float32)
    same = np.eye(3, dtype=np.float32)[None, :2]
    found = alignment.correlation(a[None], b[None] + a[None], same)
    inner = (slice(1, -1), slice(1, -1))  # without the margin
    expected = np.corrcoef(*(v[inner].ravel().astype(np.float64) for v in (a, a + b)))[0, 1]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_blur_is_that_by_definition_also_at_edges(cifar10_test: Arrays) -> None:
    images = likeness.small(cifar10_test.images[:3]).astype(np.float64)
    expected = images
    for times in range(1, 6):
        wide = np.pad(expected, ((0, 0), (1, 1), (1, 1)), "edge")
        weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
        parts = [
            weights[i, j] * wide[:, i : i + 32, j : j + 32] for i in range(3) for j in range(3)
        ]
        expected = np.sum(parts, 0)
        found = alignment.blurred(images.astype(np.float32), times)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_each_picture_has_its_nearest_ones_as_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all cosines, in one cell; pictures that both found are told once."""
    monkeypatch.setattr(likeness, "NEIGHBOURS", 5)
    draw = np.random.default_rng(0)
    raw, mirrored = (draw.normal(size=(300, 12)).astype(np.float32) for _ in range(2))
    pairs, flipped = likeness.candidates(raw, mirrored)
    plain, other = (each.astype(np.float64) - raw.mean(0) for each in (raw, mirrored))
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    expected: dict[tuple[int, int, bool], float] = {}
    for is_flipped, queries in ((False, plain), (True, other)):
        cosines = queries @ plain.T
        np.fill_diagonal(cosines, -1)
        for a, row in enumerate(cosines):
            for b in np.argsort(-row)[:5].tolist():
                if row[b] >= likeness.LEAST_OF_FEW:
                    key = (min(a, b), max(a, b), is_flipped)
                    expected[key] = max(row[b], expected.get(key, 0))
    found = [(a, b, f) for (a, b), f in zip(pairs.tolist(), flipped.tolist(), strict=True)]
    assert len(found) > 300
    assert sorted(found) == sorted(expected)
    assert (np.diff([expected[each] for each in found]) <= 1e-6).all()


def test_the_first_pair_of_each_picture_is_its_nearest() -> None:
    pairs = np.random.default_rng(1).integers(0, 40, (300, 2))
    seen: set[int] = set()
    expected = []
    for pair in pairs.tolist():
        expected.append(not seen >= set(pair))
        seen |= set(pair)
    assert likeness.nearest(pairs).tolist() == expected
    assert likeness.nearest(pairs[:0]).tolist() == []


@pytest.mark.parametrize("are_lookalikes", [True, False])
def test_of_mere_lookalikes_only_the_likeliest_pairs_are_compared(
    cifar10_test: Arrays, are_lookalikes: bool
) -> None:
    """Clothes look alike by the thousands; photographs do not, and all their pairs are compared."""
    if are_lookalikes:
        train = FASHION_MNIST / "train-images-idx3-ubyte.gz"
        images = np.frombuffer(gzip.decompress(train.read_bytes()), np.uint8, offset=16)
        thumbs = likeness.small(images.reshape(-1, 28, 28, 1)[:1500])
    else:
        thumbs = likeness.small(cifar10_test.images[:1500])
    darker = (thumbs[::100] * 0.8 + 20).astype(np.uint8)
    thumbs = np.concatenate([thumbs, darker])
    compared: list[int] = []  # at each of the two times, as progress tells it

    def progress(_: int, total: int) -> None:
        compared.extend([total] if total not in compared else [])

    pairs, similarity = duplicates.alike(thumbs, progress)
    raw = likeness.describe(thumbs), likeness.describe(thumbs[:, :, ::-1])
    there = min(len(likeness.candidates(*raw)[0]), 3 * len(thumbs) + 5000)
    assert len(compared) == 1 + (not are_lookalikes)
    assert (sum(compared) < there / 2) if are_lookalikes else (sum(compared) == there)
    least = duplicates.least_of(similarity, len(thumbs))
    assert (least > duplicates.LEAST) == are_lookalikes
    told = set(map(tuple, pairs[similarity >= least].tolist()))
    assert sum((100 * i, 1500 + i) in told for i in range(15)) >= 13


def test_equal_digests_are_grouped() -> None:
    digests = np.array([b"c", b"a", b"b", b"a", b"c", b"a"], "V1")
    groups = [group.tolist() for group in duplicates.same_pixels(digests)]
    assert sorted(groups) == [[0, 4], [1, 3, 5]]


def test_where_alike_pictures_are_common_only_what_stands_out_is_told() -> None:
    draw = np.random.default_rng(3)
    least = duplicates.LEAST
    lookalikes = least + (1 - least) * draw.beta(2, 6, 2000).astype(np.float32)
    copies = (1 - (1 - least) * draw.beta(1, 6, 300)).astype(np.float32)
    both = np.concatenate([lookalikes, copies])
    assert duplicates.least_of(copies, 500) == least
    assert duplicates.least_of(lookalikes[:40], 40) == least
    assert duplicates.least_of(both, 20_000) == least  # rare, and so no mere look-alikes
    told = duplicates.least_of(both, 3000)
    assert (lookalikes >= told).mean() < 0.02
    assert (copies >= told).mean() > 0.7


def test_pairs_of_which_each_is_told_at_once_need_no_second_way(cifar10_test: Arrays) -> None:
    """As in the last block of pairs of a set where all of it are copies."""
    thumbs = likeness.small(np.concatenate([cifar10_test.images[:1]] * 3))
    pairs, similarity = duplicates.alike(thumbs, lambda *_: None)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (0, 2), (1, 2)]
    assert similarity.min() > 0.9
