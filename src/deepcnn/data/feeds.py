"""Feeds: what gives the trainer the batch of a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepcnn.data import order
from deepcnn.data.arrays import Arrays


@dataclass(frozen=True)
class Batch:
    """The examples of a step, on the training device.

    `images`: uint8 [B, H, W, C]; `labels`: int64 [B]; `index`: int64 [B], which examples these
    are; `epoch`, `position`: int64 [B], when they are seen, which is what random choices about
    them are functions of.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    epoch: Tensor
    position: Tensor


class Preloaded:
    """Keeps the whole set in the device's memory, as uint8, and gathers batches from it."""

    def __init__(self, arrays: Arrays, *, batch_size: int, seed: int, device: torch.device) -> None:
        self._images = torch.from_numpy(arrays.images).to(device)
        self._labels = torch.from_numpy(arrays.labels).to(device)
        self._batch_size = batch_size
        self._seed = seed
        self._device = device

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: a function of (seed, step), whichever came before."""
        index, epoch, position = (
            torch.from_numpy(values).to(self._device, non_blocking=True)
            for values in order.batch(self._seed, step, self._batch_size, len(self._images))
        )
        return Batch(self._images[index], self._labels[index], index, epoch, position)
