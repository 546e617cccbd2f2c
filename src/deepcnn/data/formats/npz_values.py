"""The rules by which other arrays become uint8 images with whole labels.

- Images of floats whose values are all 0 to 1 are multiplied by 255; those up to 255 stay. Both are
  rounded to the nearest whole number, halves to the even one. All images of an array are looked at
  first. Negative values, as after a standardization, and what is not finite are refused.
- Images of whole numbers must have values of 0 to 255, and stay. Of booleans, true is 255.
- Labels [N, classes] are one-hot: in each row one value is 1, all others are 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.formats.npz_archive import PIECE, Holder, Member, fill
from deepcnn.errors import DataError


def scale(blocks: Iterable[NDArray[Any]], dtype: np.dtype[Any], where: str) -> int:
    """Return the factor for all values of images, 1 or 255; raises DataError."""
    low, high = math.inf, -math.inf
    for values in blocks:
        lowest, highest = float(values.min()), float(values.max())
        if not 0 <= lowest <= highest <= 255:  # also where they are not numbers
            raise DataError(
                f"{where}: expected {dtype} images with values of 0 to 1 or 0 to 255, found "
                f"{lowest:g} to {highest:g}. Write them before they are standardized, as uint8."
            )
        low, high = min(low, lowest), max(high, highest)
    return 255 if dtype.kind == "b" or (dtype.kind == "f" and high <= 1) else 1


def said(where: str, dtype: np.dtype[Any], scale: int) -> str:
    """Return what a note says about the rule."""
    if dtype.kind == "b":
        return f"{where}: booleans; true is read as 255"
    if dtype.kind != "f":
        return f"{where}: {dtype}, whole numbers of 0 to 255; read as uint8"
    if scale == 255:
        return f"{where}: {dtype} values of 0 to 1; read as uint8, times 255 and rounded"
    return f"{where}: {dtype} values of 0 to 255; read as uint8, rounded"


def pixels(values: NDArray[Any], scale: int) -> NDArray[np.uint8]:
    """Return images uint8 from the values of such an array."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f":
        return np.rint(values.astype(np.float64) * scale).astype(np.uint8)
    return values.astype(np.uint8) * np.uint8(scale)


def one_hot(archive: Holder, key: str, member: Member) -> NDArray[np.int64]:
    """Return the place of the 1 in each row of an array [N, classes], int64 [N].

    Raises DataError, naming the example, for a row that is not one-hot.
    """
    count, classes = member.shape
    labels = np.empty(count, np.int64)
    row_bytes = classes * member.dtype.itemsize
    if member.dtype.kind not in "buif" or member.by_columns or row_bytes > PIECE:
        raise DataError(
            f"{archive.path}: expected one-hot labels {key!r} as real numbers, a row of at most "
            f"{PIECE:,} bytes after another, found {member.dtype} {list(member.shape)}. Write the "
            "class of each image as an integer."
        )
    with archive.open(member) as stream:
        stream.read(len(member.header))
        for first in range(0, count, step := PIECE // row_bytes):
            rows = np.empty((min(step, count - first), classes), member.dtype)
            fill(stream, rows.reshape(-1).view(np.uint8), archive.path)
            wrong = np.flatnonzero(((rows == 1).sum(1) != 1) | ((rows != 0).sum(1) != 1))
            if wrong.size:
                some = ", ".join(map(str, rows[wrong[0]][:8].tolist()))
                raise DataError(
                    f"{archive.path}: expected labels {key!r} of shape {list(member.shape)} as "
                    f"one-hot, one 1 in each row and zeros, found {some}{', …' * (classes > 8)} "
                    f"for example {first + int(wrong[0])}. Write the class of each image as an "
                    "integer."
                )
            labels[first : first + len(rows)] = rows.argmax(1)
    return labels
