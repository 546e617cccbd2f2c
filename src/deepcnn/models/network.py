"""What a trainer asks of a network, with answers for those that say nothing.

Any `nn.Module` that maps images [N, C, H, W] to logits [N, classes] can be trained. One that has
more to say derives from `Network`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

INITIAL_IMAGES = 5000  # of the training set, from which initial weights may be made
INITIAL_BLOCK = 500  # of them at a time


class Network(nn.Module):
    """A network that says how it wants to be trained.

    `penalties`: the factor of ½‖w‖² in the loss for the weights of these names; `smallest_side`:
    the network takes images of any size from so many pixels a side on; None: of one size only.
    """

    penalties: ClassVar[Mapping[str, float]] = {}
    smallest_side: int | None = None

    def initialize(self, images: Tensor) -> None:
        """Set initial weights that are made from the data; here: none.

        `images`: undistorted training input, float32 [N, C, H, W], at most `INITIAL_IMAGES`.
        """

    def initialize_by_blocks(self, blocks: Iterable[Tensor]) -> None:
        """Set these weights from images that come one block of `INITIAL_BLOCK` after another.

        By default all are joined. A network that need not have them in memory at once overrides it.
        """
        self.initialize(torch.cat(list(blocks)))


def penalties_of(model: nn.Module) -> Mapping[str, float]:
    """Return the factor of the penalty of each weight that has one."""
    return model.penalties if isinstance(model, Network) else {}


def smallest_side_of(model: nn.Module) -> int | None:
    """Return the fewest pixels a side of images that a network takes; None: it takes one size."""
    return model.smallest_side if isinstance(model, Network) else None


def initialize(model: nn.Module, blocks: Callable[[], Iterable[Tensor]]) -> None:
    """Let a network make initial weights from images; they are only asked for where it does."""
    if isinstance(model, Network) and type(model).initialize is not Network.initialize:
        model.initialize_by_blocks(blocks())
