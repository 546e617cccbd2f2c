from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepcnn.devices import Part, choose_device
from deepcnn.errors import ConfigError
from tests.helpers.tiny import CPU


@given(length=st.integers(1, 1000), count=st.integers(1, 40))
def test_parts_join_without_gap_or_overlap_and_are_about_equal(length: int, count: int) -> None:
    slices = [Part(i, count, CPU).slice(length) for i in range(count)]
    assert [i for s in slices for i in range(length)[s]] == list(range(length))
    sizes = {s.stop - s.start for s in slices}
    assert max(sizes) - min(sizes) <= 1


def test_a_device_that_is_not_here_is_answered_with_the_possible_ones() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"'warp' cannot be used here .*expected auto, cpu"):
        choose_device("warp")
