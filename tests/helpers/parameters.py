"""What several tests of learning need."""

from __future__ import annotations

import torch
from torch import nn

OPEN, SHUT, ONE = torch.tensor(True), torch.tensor(False), torch.ones(())


def parameters(*shapes: tuple[int, ...]) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        str(i): nn.Parameter(torch.randn(shape, generator=generator))
        for i, shape in enumerate(shapes)
    }
