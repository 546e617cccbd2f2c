"""How similar two pictures are after one is aligned with the other: moved, scaled, turned, lit.

Inverse compositional alignment by Gauss-Newton steps (Baker and Matthews: "Lucas-Kanade 20 years
on", 2004), for the six numbers of an affine map and two for the light, of many pairs at once. The
similarity is the correlation of the pixels that both pictures have.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LEAST_OVERLAP = 0.6  # of the area; what is less in common is no evidence
MARGIN = 1 / 16  # of half a side, at each edge; many copies differ in a frame
STEPS = 6  # on small pictures, and as many on whole ones
LARGEST_STEP = 0.3  # of half a side
DAMPING = 1e-3
DEVIATIONS = 4.0  # that a similarity is below the correlation


def halved(images: NDArray[np.uint8]) -> Floats:
    """Return images [M, S, S] at half their side, S even."""
    count, side = images.shape[:2]
    parts = images.astype(np.float32).reshape(count, side // 2, 2, side // 2, 2)
    return np.asarray(parts.mean((2, 4)))


def rough(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Return the similarity of the details of small pictures [M, S, S], float32 [M], and the maps.

    This costs a fifth of `similarity`, which starts from these maps. Most pairs need no closer
    look.
    """
    calm, other = blurred(first, 1), blurred(second, 1)
    maps = align(calm, other, STEPS, None)
    return correlation(first - calm, second - other, maps), maps


def similarity(first: Floats, second: Floats, maps: Floats) -> Floats:
    """Return the similarity of each pair after alignment, float32 [M], 0 to 1.

    `first`, `second`: gray pictures float32 [M, S, S]; the second is aligned with the first.
    `maps`: to start from, see `rough`. The result is the smaller one of two correlations: of all
    pixels, and of the details alone, without what a blur leaves. (Two pictures of a bright sky over
    dark ground are similar in the first one only.) It is then lowered to a value that can be
    trusted: by DEVIATIONS of Fisher's z ("Frequency distribution of the values of the correlation
    coefficient", 1915), for as many pixels as the details are spread over. This is because a few
    pixels decide for two dark shapes before a plain sky. If the pictures have too little in common
    area, or if they show nothing, the result is 0.
    """
    first, second = blurred(first, 1), blurred(second, 1)
    maps = align(first, second, STEPS, maps)
    fine, other = first - blurred(first, 5), second - blurred(second, 5)
    found = np.minimum(correlation(first, second, maps), correlation(fine, other, maps))
    pixels = np.minimum(_spread(fine), _spread(other))
    z = np.arctanh(np.minimum(found, 1 - 1e-6)) - DEVIATIONS / np.sqrt(pixels)
    return np.asarray(np.tanh(np.maximum(z, 0)), np.float32)


def _spread(images: Floats) -> Floats:
    """Return over how many pixels each image's energy is spread (its participation ratio)."""
    energy = images.reshape(len(images), -1) ** 2
    return np.asarray(
        np.maximum(energy.sum(1), 1e-6) ** 2 / np.maximum((energy**2).sum(1), 1e-12), np.float32
    ).clip(1)


def blurred(images: Floats, times: int) -> Floats:
    """Return images [M, S, S] after a binomial filter of 3×3, applied this many times."""
    once = _binomial(images.shape[1])
    rows = np.linalg.matrix_power(once, times).astype(np.float32)
    return np.asarray(rows @ images @ rows.T)


@functools.cache
def _binomial(side: int) -> NDArray[np.float64]:
    """Return the filter of a line, [side, side]; beyond the edge its outermost pixel goes on."""
    wide = np.pad(np.eye(side), ((1, 1), (0, 0)), "edge")
    return np.asarray((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4)


def align(first: Floats, second: Floats, steps: int, maps: Floats | None) -> Floats:
    """Return the affine maps [M, 2, 3] from places in `first` to places in `second`.

    Places are (y, x), from -1 at one edge to 1 at the other. `maps`: to start from; None: the
    identity.
    """
    count, side = first.shape[:2]
    ys, xs, _ = _grid(side)
    dy, dx = (g.reshape(count, -1) * (side / 2) for g in np.gradient(first, axis=(1, 2)))
    flat = first.reshape(count, -1)
    ones = np.ones_like(flat)
    changes = np.stack([dy * ys, dy * xs, dy, dx * ys, dx * xs, dx, flat, ones], 1)
    normal = (changes @ changes.transpose(0, 2, 1)).astype(np.float64)
    damping = DAMPING * (np.trace(normal[:, :6, :6], axis1=1, axis2=2) / 6)[:, None] + DAMPING
    index = np.arange(8)
    normal[:, index[:6], index[:6]] += damping
    normal[:, index[6:], index[6:]] += DAMPING
    solve = np.linalg.inv(normal).astype(np.float32)
    found = np.tile(np.eye(3, dtype=np.float32), (count, 1, 1))
    if maps is not None:
        found[:, :2] = maps
    step = np.tile(np.eye(3, dtype=np.float32), (count, 1, 1))
    for _ in range(steps):
        seen, inside = _warped(second, found[:, :2])
        error = ((seen - flat) * inside)[:, :, None]
        change = (solve @ (changes @ error))[:, :, 0]
        gain = np.maximum(1 + change[:, 6:7], 0.3)
        limited = np.clip(change[:, :6] / gain, -LARGEST_STEP, LARGEST_STEP).reshape(-1, 2, 3)
        step[:, :2] = limited + np.eye(3, dtype=np.float32)[:2]
        found = found @ np.linalg.inv(step)
    return found[:, :2]


def correlation(first: Floats, second: Floats, maps: Floats) -> Floats:
    """Return the correlation of `first` [M, S, S] with `second` under `maps`, float32 [M]."""
    seen, inside = _warped(second, maps)
    count = np.maximum(inside.sum(1), 1)

    def centred(pixels: Floats) -> Floats:
        found: Floats = pixels - (np.einsum("ms,ms->m", pixels, inside) / count)[:, None]
        found *= inside
        return found

    a, b = centred(first.reshape(len(first), -1)), centred(seen)
    product, of_a, of_b = (np.einsum("ms,ms->m", *each) for each in ((a, b), (a, a), (b, b)))
    found = product / np.sqrt(of_a * of_b + 1e-3)
    enough = inside.mean(1) >= LEAST_OVERLAP
    return np.where(enough, found.clip(0, 1), 0).astype(np.float32)


@functools.cache
def _grid(side: int) -> Floats:
    """Return the places of all pixels' centres, and ones, float32 [3, S * S]."""
    line = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
    return np.stack([np.repeat(line, side), np.tile(line, side), np.ones(side**2, np.float32)])


def _warped(images: Floats, maps: Floats) -> tuple[Floats, Floats]:
    """Return images at mapped places, bilinear [M, S * S], and 1 if a place is inside, else 0.

    This takes most of the time of a comparison, so it writes into arrays that it has already.
    """
    count, side = images.shape[:2]
    places = maps @ _grid(side)
    inside = (np.abs(places) <= 1 - MARGIN).all(1) & (np.abs(_grid(side)[:2]) <= 1 - MARGIN).all(0)
    places += 1
    places *= np.float32(side / 2)
    places -= np.float32(0.5)
    np.clip(places, 0, side - 1.001, out=places)
    corners = places.astype(np.int32)
    places -= corners
    y, x = places[:, 0], places[:, 1]
    where = np.arange(count)[:, None] * side**2 + (corners[:, 0] * side + corners[:, 1])
    flat = images.reshape(-1)
    upper, upper_right, lower, lower_right = (
        flat[first:].take(where, mode="clip") for first in (0, 1, side, side + 1)
    )  # all indices are inside; "clip" alone does not look through them first
    for one, other, share in ((upper, upper_right, x), (lower, lower_right, x), (upper, lower, y)):
        other -= one
        other *= share
        one += other
    return upper, inside.astype(np.float32)
