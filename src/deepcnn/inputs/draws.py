"""The random choices that training makes about a batch of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepcnn import hashing


@dataclass(frozen=True)
class Draws:
    """The random choices for a batch of B images; a choice that is not made is None.

    `row`, `column`: int64 [B], where the crop starts in the padded image. `flip`: bool [B].
    `contrast`: float32 [B], the factor. `cut_row`, `cut_column`: int64 [B], where the blanked
    square starts in the crop.

    `brightness`: float32 [B], the amount that is added, in pixel values. `saturation`: float32 [B],
    the factor. `hue`: float32 [B], the turn, as a share of the circle. `angle`: float32 [B], in
    degrees, counterclockwise. `erase_row`, `erase_column`, `erase_height`, `erase_width`: int64
    [B], the rectangle of the crop that is erased; height 0 means none. `erase_key`: int64 [B],
    determines the random values that fill it.

    `share`: float32 [B], how much of itself an image keeps when another is mixed into it. `pasted`:
    bool [B], whether the other image is pasted as a rectangle, not blended. `paste_row`,
    `paste_column`: float32 [B], the middle of the rectangle, as shares of the sides.
    """

    row: Tensor
    column: Tensor
    flip: Tensor
    contrast: Tensor | None = None
    cut_row: Tensor | None = None
    cut_column: Tensor | None = None
    brightness: Tensor | None = None
    saturation: Tensor | None = None
    hue: Tensor | None = None
    angle: Tensor | None = None
    erase_row: Tensor | None = None
    erase_column: Tensor | None = None
    erase_height: Tensor | None = None
    erase_width: Tensor | None = None
    erase_key: Tensor | None = None
    share: Tensor | None = None
    pasted: Tensor | None = None
    paste_row: Tensor | None = None
    paste_column: Tensor | None = None

    def made(self) -> dict[str, Tensor]:
        """Return the choices that were made, by name."""
        return {name: values for name, values in vars(self).items() if values is not None}


def hashed(
    seed: int, streams: tuple[int, ...], epoch: Tensor, position: Tensor
) -> dict[int, Tensor]:
    """Return 64 random bits for each example, int64 [B], by stream; see `hashing.bits`."""
    if epoch.device.type == "cpu":  # NumPy is quicker where numbers are few
        found = hashing.bits(seed, streams, epoch.numpy(), position.numpy())
        return dict(zip(streams, torch.from_numpy(found).unbind(), strict=True))
    # one by one: their keys in a tensor would be copied to a GPU, which then is waited for
    return {stream: hashing.bits(seed, stream, epoch, position) for stream in streams}


def uniform(low: float, high: float, bits: Tensor) -> Tensor:
    """Return numbers from `low` to below `high`, float32, for 64 random bits each."""
    share: Tensor = hashing.unit(bits).to(torch.float32)
    return low + (high - low) * share


def open_uniform(bits: Tensor) -> Tensor:
    """Return numbers above 0 and below 1, for functions without a value at 0 or 1.

    They are float64 if the device has it. So values that are computed from them and then rounded to
    float32 do not depend on how many are computed at once.
    """
    exact = torch.float32 if bits.device.type == "mps" else torch.float64
    low: Tensor = hashing.unit(bits).to(exact)
    return low + 2.0**-25
