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
    # Pixel p of the enlarged picture shows 27 / 32 (p + 1/2) + 2 - 1/2 of the other one.
    scale, half = 27 / 32, 15.5
    expected_y = (scale * (half + 0.5) + 2 - 0.5 - half) / half
    expected_x = (scale * (half + 0.5) + 3 - 0.5 - half) / half
    middle = np.median(maps, 0)
    expected = np.array([[scale, 0, expected_y], [0, scale, expected_x]])
    np.testing.assert_allclose(middle, expected, atol=0.01)
    assert (alignment.similarity(first, second) > 0.8).mean() >= 0.9
    assert (alignment.similarity(first, np.roll(second, 1, 0)) < 0.5).all()


def test_correlation_is_that_of_numpy(cifar10_test: Arrays) -> None:
    a, b = likeness.small(cifar10_test.images[:2]).astype(np.float32)
    same = np.eye(3, dtype=np.float32)[None, :2]
    found = alignment.correlation(a[None], b[None] + a[None], same)
    expected = np.corrcoef(a.ravel().astype(np.float64), (a + b).ravel().astype(np.float64))[0, 1]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_equal_digests_are_grouped() -> None:
    digests = np.array([b"c", b"a", b"b", b"a", b"c", b"a"], "V1")
    groups = [group.tolist() for group in duplicates.same_pixels(digests)]
    assert sorted(groups) == [[0, 4], [1, 3, 5]]
