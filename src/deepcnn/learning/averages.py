"""Moving averages of parameters and of losses. The model in training is only read."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from deepcnn.hardware import kernels_are_dear


class ParameterAverages:
    """Exponential moving averages of all trainable parameters.

    They start at the initial values. After update n (n = 1 is the first) the average becomes d ·
    average + (1 - d) · parameter with d = min(decay, (1 + n) / (10 + n)). So early averages follow
    quickly (TensorFlow's ExponentialMovingAverage with num_updates).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.tensors = {name: p.detach().clone() for name, p in self._live.items()}

    def weight(self, n: int) -> float:
        """Return how far the averages move after update `n`: 1 - d."""
        return 1 - min(self._decay, (1 + n) / (10 + n))

    @torch.no_grad()
    def update(self, weight: Tensor, gate: Tensor) -> None:
        """Follow an update with this `weight` (float32 []); if `gate` (bool []) is False, stay."""
        weight = gate * weight
        averages = list(self.tensors.values())
        if kernels_are_dear(weight.device):
            ways = torch._foreach_sub(list(self._live.values()), averages)
            torch._foreach_mul_(ways, weight)
            torch._foreach_add_(averages, ways)
        else:  # in one pass over memory
            for average, parameter in zip(averages, self._live.values(), strict=True):
                average.lerp_(parameter, weight)

    def model(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model`, including its buffers, with the averaged parameters."""
        averaged = copy.deepcopy(model)
        averaged.load_state_dict(self.tensors, strict=False)
        return averaged


class LossAverages:
    """Moving averages with decay 0.9 of a fixed list of losses.

    Unlike those of the reference they are debiased: they are divided by 1 - 0.9ⁿ after n values. So
    the first average is the first loss, and not a tenth of it.
    """

    DECAY = 0.9

    def __init__(self, count: int) -> None:
        self.biased = torch.zeros(count)

    def update(self, values: Tensor) -> None:
        """Take in the losses of one step, float32 [count]."""
        self.biased.lerp_(values, 1 - self.DECAY)

    def values(self, n: int) -> Tensor:
        """Return the averages after n steps, n >= 1, float32 [count]."""
        return self.biased / (1 - self.DECAY**n)
