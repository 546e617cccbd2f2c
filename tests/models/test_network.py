"""What a network says about how it wants to be trained, and what is meant where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepcnn.models.network import Network, initialize, penalties_of, smallest_side_of


class Plain(Network):
    pass


class Wanting(Network):
    penalties: ClassVar[Mapping[str, float]] = {"a.weight": 0.5}
    smallest_side = 7

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.seen: list[Tensor] = []

    def initialize(self, images: Tensor) -> None:
        self.seen.append(images)


def test_a_network_that_says_nothing_has_no_wishes() -> None:
    asked: list[bool] = []

    def images() -> list[Tensor]:
        asked.append(True)
        return [torch.zeros(1, 3, 4, 4)]

    for model in (Plain(), nn.Linear(2, 2)):
        assert penalties_of(model) == {}
        assert smallest_side_of(model) is None
        initialize(model, images)
    assert asked == [], "no image is read for nobody"


def test_a_network_that_says_so_gets_penalties_sizes_and_images() -> None:
    model = Wanting()
    assert penalties_of(model) == {"a.weight": 0.5}
    assert smallest_side_of(model) == 7
    initialize(model, lambda: [torch.ones(3, 3, 4, 4), torch.ones(2, 3, 4, 4)])
    (images,) = model.seen
    assert torch.equal(images, torch.ones(5, 3, 4, 4))
