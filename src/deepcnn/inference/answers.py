"""What a network answers: uint8 images in, logits or probabilities out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepcnn.devices import Place
from deepcnn.hardware import float32_products
from deepcnn.inference.prepared import for_inference
from deepcnn.inputs.transform import Transform

UNSURE = 4  # of so many images one is looked at again


class Answers:
    """A network prepared for prediction at a place, with the transform of its run.

    `model` must lie at `place`, and is left in evaluation mode, otherwise as it is.
    """

    def __init__(self, model: nn.Module, transform: Transform, place: Place) -> None:
        self.transform = transform
        self.place = place
        self._network = for_inference(model.eval(), place.dtype)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits [b, classes] of images uint8 [b, H, W, C], at the place.

        They are the mean over the views that the transform asks for. Where only those are looked at
        again of which the network is unsure, they are the images of this block whose two largest
        logits differ least, one in `UNSURE`: a number that is known before, so that nobody need
        wait for a GPU's answer. (After hiverge's cifar10-speedrun, 2025.)
        """
        with self.place.autocast(), float32_products(self.place.device):
            logits = self._mean(self.transform.views_of(images))
            if self.transform.views != "unsure":
                return logits
            largest = logits.topk(min(2, logits.shape[1]), dim=1).values
            margins = largest[:, 0] - largest[:, -1]
            unsure = margins.topk(math.ceil(len(images) / UNSURE), largest=False).indices
            again = self._mean(self.transform.shifted_views_of(images[unsure]))
            return logits.index_copy(0, unsure, (logits[unsure] + again) / 2)

    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of each class, float32 [b, classes]; see `logits`."""
        return self.logits(images).float().softmax(1)

    def _mean(self, views: list[tuple[float, Tensor]]) -> Tensor:
        return torch.stack([weight * self._network(view) for weight, view in views]).sum(0)
