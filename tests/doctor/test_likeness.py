"""Near duplicates among thousands of real pictures, and alignment against known maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.doctor import alignment, duplicates, likeness


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
