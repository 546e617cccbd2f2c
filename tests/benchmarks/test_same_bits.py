"""What compares the numbers of two sources."""

from __future__ import annotations

import torch

from tests.benchmarks.conftest import Import


def test_what_differs_first_between_two_sources_is_told(benchmark: Import) -> None:
    same_bits = benchmark("cases.same_bits")

    def difference(**tree: object) -> str | None:
        base = {"loss": "0.1", "weight": torch.tensor([0.0, 2.0]), "step": torch.tensor(3)}
        found: str | None = same_bits.first_difference(base, {**base, **tree})
        return found

    assert difference() is None
    assert difference(loss="0.2") == "loss: base 0.1, tree 0.2"
    next_above = torch.tensor([0.0, 2.0]).nextafter(torch.tensor(9.0))
    assert difference(weight=next_above) == "weight: 2 of 2 values differ, by up to 2.38e-07"
    negative_zero = torch.tensor([-0.0, 2.0])
    assert difference(weight=negative_zero) == "weight: 1 of 2 values differ, by up to 0"
    assert difference(step=torch.tensor(4)) == "step: 1 of 1 values differ, by up to 1"
    double = torch.tensor([0.0, 2.0], dtype=torch.float64)
    assert difference(weight=double) == "weight: base torch.float32 [2], tree torch.float64 [2]"
    assert difference(more="") == "more: only in the tree"
    assert same_bits.first_difference({"a": ""}, {}) == "a: only in the base"
    assert same_bits.first_difference({}, {}) == "expected something to compare, found nothing"


def test_all_bits_of_logged_numbers_are_compared(benchmark: Import) -> None:
    same_bits = benchmark("cases.same_bits")
    line = '{"event": "Stepped", "step": 7, "seconds": 1.0, "losses": {"total_loss": LOSS}}\n'
    losses = ("0.30000000000000004", "0.3", "-0.0", "null")
    for number in losses:
        log = '{"event": "Saved", "step": 7}\n' + line.replace("LOSS", number)
        assert same_bits.events(log, "Stepped", ("losses",)) == {
            "Stepped 1, step 7": f'{{"losses": {{"total_loss": {number}}}}}'
        }
