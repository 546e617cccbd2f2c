from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepcnn import hashing

MASK = (1 << 64) - 1
int64s = st.integers(-(1 << 63), (1 << 63) - 1)


def mix(x: int) -> int:
    """SplitMix64's finalizer (variant 13) in plain integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def bits(seed: int, stream: int, epoch: int, position: int) -> int:
    golden = 0x9E3779B97F4A7C15
    key = mix((mix(seed & MASK) + (stream + 1) * golden) & MASK)
    epoch_key = mix((epoch * golden + key) & MASK)
    return mix((position * golden + epoch_key) & MASK)


def test_splitmix64_matches_its_published_first_outputs() -> None:
    # The generator of seed 0 gives mix(1 * golden), mix(2 * golden), …
    golden = 0x9E3779B97F4A7C15
    assert mix(golden) == 0xE220A8397B1DCDAF
    assert mix(2 * golden & MASK) == 0x6E789E6AA1B965F4


@given(int64s, st.integers(0, 8), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_numpy_torch_and_plain_integers_agree(
    seed: int, stream: int, epoch: int, position: int
) -> None:
    expected = bits(seed, stream, epoch, position)
    for library in (np.array, torch.tensor):
        found = hashing.bits(seed, stream, library([epoch]), library([position]))
        assert int(found[0]) & MASK == expected
        assert float(hashing.unit(found)[0]) == (expected >> 40) / 2**24
        assert int(hashing.below(9, found)[0]) == ((expected >> 32) * 9) >> 32


def test_committed_integers_pin_the_hash() -> None:
    found = hashing.bits(0, hashing.ORDER, np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert found.tolist() == PINNED_BITS


PINNED_BITS = [3746585686858627171, 6235967106033911276, -5432831574128818718]


@pytest.mark.parametrize("stream", range(9))
def test_numbers_are_uniform_and_streams_independent(stream: int) -> None:
    count, buckets = 100_000, 81
    position = np.arange(count, dtype=np.int64)
    values = hashing.below(buckets, hashing.bits(0, stream, np.array([2]), position))
    expected = count / buckets
    chi2 = float(((np.bincount(values, minlength=buckets) - expected) ** 2 / expected).sum())
    assert chi2 < 150  # 80 degrees of freedom: mean 80, deviation 12.6
    other = hashing.unit(hashing.bits(0, (stream + 1) % 9, np.array([2]), position))
    correlation = np.corrcoef(values, other)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(count)
