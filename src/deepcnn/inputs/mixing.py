"""MixUp and CutMix: another image of the batch is blended into an image, or pasted into it.

Zhang et al.: "mixup: beyond empirical risk minimization", ICLR 2018. Yun et al.: "CutMix:
regularization strategy to train strong classifiers with localizable features", ICCV 2019. With
both, each example gets one of the two, with equal chances.

The other image is the previous one in the batch; for the first image it is the last. So a device
that computes a part of a batch needs only one example more than its part, for any division into
parts, and gets the same result as a single device. The batch is in random order already. The share
of the mixture is a function of (seed, epoch, position) of the image that the other is mixed into.
In the papers' programs it is the same for a whole batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcnn import hashing
from deepcnn.inputs.draws import Draws, open_uniform
from deepcnn.kernels.boxes import inside

STREAMS = (
    hashing.MIX_RADIUS,
    hashing.MIX_ANGLE,
    hashing.MIX_PASTED,
    hashing.MIX_ROW,
    hashing.MIX_COLUMN,
)


def draw(mixup: float, cutmix: float, bits: dict[int, Tensor]) -> dict[str, Tensor]:
    """Choose how images are mixed, by the alphas of MixUp and of CutMix; 0 means never.

    Returns `share` of `Draws`, and with CutMix also `pasted`, `paste_row` and `paste_column`.
    """
    radius, angle = bits[hashing.MIX_RADIUS], bits[hashing.MIX_ANGLE]
    if not cutmix:
        return {"share": beta(mixup, radius, angle)}
    share = beta(cutmix, radius, angle)
    pasted = torch.ones_like(share, dtype=torch.bool)
    if mixup:
        pasted = (bits[hashing.MIX_PASTED] & 1).bool()
        share = torch.where(pasted, share, beta(mixup, radius, angle))
    return {
        "share": share,
        "pasted": pasted,
        "paste_row": open_uniform(bits[hashing.MIX_ROW]).to(torch.float32),
        "paste_column": open_uniform(bits[hashing.MIX_COLUMN]).to(torch.float32),
    }


def beta(alpha: float, radius: Tensor, angle: Tensor) -> Tensor:
    """Return numbers distributed as Beta(alpha, alpha), alpha > 0, for twice 64 random bits each.

    If T has Student's distribution with 2·alpha degrees of freedom, (1 + T / √(2·alpha + T²)) / 2
    has the wanted distribution. If u and v are uniform on (0, 1), T is √(2·alpha·(u^(-1/alpha) -
    1))·cos 2πv (Bailey: "Polar generation of random variates with the t-distribution", Mathematics
    of Computation 62, 1994; Devroye: "Random variate generation in one line of code", 1996). So
    nothing is tried twice. The formula is written so that no power overflows. Returns float32.
    """
    logarithm = open_uniform(radius).log() / alpha
    cosine = (2 * math.pi * open_uniform(angle)).cos()
    power, rest = logarithm.exp(), -torch.expm1(logarithm) * cosine.square()
    distance = (rest / (power + rest)).sqrt()
    return ((1 + cosine.sign() * distance) / 2).to(torch.float32)


def mix(
    images: Tensor, labels: Tensor, draws: Draws, *, steps: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Mix the examples of `steps` parts of batches, each with the example before it.

    `images`: float32 [steps·(b + 1), C, H, W], the network's input. Each step has one example more
    than its part: the one before comes first. `labels`: int64 [steps·(b + 1)], below `classes`.
    `draws`: for the same number of examples. Returns images float32 [steps·b, C, H, W] in
    channels_last memory, and labels float32 [steps·b, classes]; each row holds the shares of the
    classes and sums to 1.
    """
    height, width = images.shape[2:]
    share, weights = _weights(draws, (height, width))
    is_of = labels[:, None] == torch.arange(classes, device=labels.device)
    mixed = _blend(images, weights[:, None], steps)
    soft = _blend(is_of.to(torch.float32), share[:, None], steps)
    return mixed.contiguous(memory_format=torch.channels_last), soft


def _blend(values: Tensor, weights: Tensor, steps: int) -> Tensor:
    """Return `weights` times each example plus the rest of the one before it, without the first."""
    every, own = (each.view(steps, -1, *each.shape[1:]) for each in (values, weights))
    return torch.lerp(every[:, :-1], every[:, 1:], own[:, 1:]).flatten(0, 1)


def _weights(draws: Draws, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return how much of itself an image keeps, [B], and each of its pixels, [B, H, W].

    If it is the same for all pixels, the second one is [B, 1, 1]. A pasted rectangle may reach over
    the edges; then only its part inside counts.
    """
    assert draws.share is not None
    share, each = draws.share, draws.share[:, None, None]
    if draws.pasted is None or draws.paste_row is None or draws.paste_column is None:
        return share, each
    sides = (1 - share).sqrt()
    row, height = _reach(draws.paste_row, sides, size[0])
    column, width = _reach(draws.paste_column, sides, size[1])
    kept = (~inside(row, column, height, width, size)).to(torch.float32)
    of_all = 1 - height * width / (size[0] * size[1])
    pasted = draws.pasted
    return torch.where(pasted, of_all, share), torch.where(pasted[:, None, None], kept, each)


def _reach(middle: Tensor, share: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return where a rectangle begins and its length, in pixels that lie inside: int64 [B]."""
    start, end = (
        ((middle + half * share) * side).round().clamp(0, side).to(torch.int64)
        for half in (-0.5, 0.5)
    )
    return start, end - start
