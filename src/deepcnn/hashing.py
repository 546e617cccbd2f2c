"""Order and randomness as functions of (seed, epoch, position), without any generator state.

Every random choice of training (which image, which crop, which flip) is a 64-bit integer hash of a
seed, a stream (the purpose of the number), an epoch and a position in this epoch. So the choices of
step 12,345 can be computed without those before. Resuming needs only the step. Any number of
devices or readers makes the same choices.

The functions take NumPy arrays or torch tensors of dtype int64 and use only `+ * ^ >> &`, which
wrap around and agree bit for bit in both libraries, on the CPU and on a GPU.

The mixing function is the finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable
pseudorandom number generators", OOPSLA 2014, with Stafford's constants, variant 13).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

Int64 = Any  # a NumPy array or a torch tensor of dtype int64; the result is of the same kind

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio: the increment of SplitMix64

# What a random number is for. Distinct streams are independent; a number, once given, stays.
ORDER, ROW, COLUMN, FLIP, CONTRAST, SPLIT, SYNTHETIC, SLOT, PIECE, CUT_ROW, CUT_COLUMN = range(11)
BRIGHTNESS, SATURATION, HUE, ANGLE, SHIFT_ROW, SHIFT_COLUMN = range(11, 17)
ERASE, ERASE_AREA, ERASE_ASPECT, ERASE_ROW, ERASE_COLUMN, ERASE_KEY, ERASE_VALUES = range(17, 24)
MIX_RADIUS, MIX_ANGLE, MIX_PASTED, MIX_ROW, MIX_COLUMN = range(24, 29)


def _signed(value: int) -> int:
    """Reinterpret the low 64 bits of a Python integer as a signed 64-bit integer."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift_right(x: Int64, bits: int) -> Int64:
    """Shift as if unsigned: int64 shifts copy the sign, and the mask removes it again."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int64) -> Int64:
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


@functools.lru_cache(maxsize=256)
def _key(seed: int, stream: int) -> int:
    """Return the start of a stream, a function of all 64 bits of the seed."""
    seed_key = int(_mix(np.array([_signed(seed)]))[0])
    return int(_mix(np.array([_signed(seed_key + (stream + 1) * _GOLDEN)]))[0])


def bits(seed: int, stream: int | tuple[int, ...], epoch: Int64, position: Int64) -> Int64:
    """Return 64 random bits, as int64, for each (epoch, position).

    `epoch` and `position` are int64 arrays or tensors that broadcast; `seed` is any Python integer
    (its low 64 bits count), `stream` is one of this module's constants. It may also be several of
    them; then the result, for arrays only, has a first axis for them.
    """
    if isinstance(stream, tuple):
        key: Int64 = np.array([_key(seed, s) for s in stream]).reshape(-1, *[1] * epoch.ndim)
        epoch, position = epoch[None], position[None]
    else:
        key = _key(seed, stream)
    epoch_key = _mix(epoch * _signed(_GOLDEN) + key)
    return _mix(position * _signed(_GOLDEN) + epoch_key)


def below(n: int | Int64, random_bits: Int64) -> Int64:
    """Return an integer in [0, n), 1 <= n <= 2**31, for each 64 random bits; n may differ for each.

    The high 32 bits are scaled. The probabilities of two values differ by less than n / 2**32.
    """
    return (_shift_right(random_bits, 32) * n) >> 32


def unit(random_bits: Int64) -> Int64:
    """Return a multiple of 2**-24 in [0, 1), exact in float32, for each 64 random bits.

    The result is float64 for a NumPy array and torch's default dtype (float32) for a tensor.
    """
    return _shift_right(random_bits, 40) * 2.0**-24
