from __future__ import annotations

import pytest

from deepcnn.learning.schedules import linear, staircase


def test_the_staircase_drops_after_its_steps_and_the_line_reaches_zero() -> None:
    steps = (0, 136_717, 136_718, 273_435, 273_436)
    found = [staircase(step, decay_steps=136_718, factor=0.1) for step in steps]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert [linear(step, steps=4) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
