"""What a training asks of a network, with defaults for networks that do not answer.

Any `nn.Module` that maps images [N, C, H, W] to logits [N, classes] can be trained. A network that
wants to say more derives from `Network`.
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

    `penalties`: for weights, by name, the factor of ½‖w‖² in the loss. `smallest_side`: the network
    takes images of any size with at least this many pixels a side; None: of one size only.
    """

    penalties: ClassVar[Mapping[str, float]] = {}
    smallest_side: int | None = None

    def initialize(self, images: Tensor) -> None:
        """Set initial weights that are made from the data. By default there are none.

        `images`: undistorted training input, float32 [N, C, H, W], at most `INITIAL_IMAGES`.
        """

    def initialize_by_blocks(self, blocks: Iterable[Tensor]) -> None:
        """Set these weights from images that come in blocks of `INITIAL_BLOCK`.

        By default all blocks are joined. A network that does not need them all in memory overrides
        this.
        """
        self.initialize(torch.cat(list(blocks)))


def penalties_of(model: nn.Module) -> Mapping[str, float]:
    """Return the factor of the penalty of each weight that has one."""
    return model.penalties if isinstance(model, Network) else {}


def smallest_side_of(model: nn.Module) -> int | None:
    """Return the smallest side, in pixels, of a network's images; None: it takes only one size."""
    return model.smallest_side if isinstance(model, Network) else None


def initialize(model: nn.Module, blocks: Callable[[], Iterable[Tensor]]) -> None:
    """Let a network make initial weights from images; `blocks` is only called if it does so."""
    if isinstance(model, Network) and type(model).initialize is not Network.initialize:
        model.initialize_by_blocks(blocks())
