"""What a network answers: uint8 images in, logits out."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn.devices import Place, to_device
from deepcnn.hardware import float32_products
from deepcnn.inference.prepared import for_inference
from deepcnn.inputs.transform import Transform

FEW = 32  # images; for fewer what a call costs counts, for more the memory of all their views


class Answers:
    """A network prepared for prediction at a place, with the transform of its run.

    `model` must be at `place`. It is put into evaluation mode, and not changed otherwise. `margin`:
    used if the transform's views are "unsure". Then an image is looked at again if its two largest
    logits differ by less than this; None: every image is looked at again. So no answer depends on
    the other images in a batch.
    """

    def __init__(
        self, model: nn.Module, transform: Transform, place: Place, margin: float | None = None
    ) -> None:
        self.transform = transform
        self.place = place
        self.margin = margin
        self._network = for_inference(model.eval(), place.dtype)

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits, float32 [b, classes], of images uint8 [b, H, W, C], at the place.

        They are the mean over the views that the transform asks for. For ten views, they are the
        logits of the mean probabilities.
        """
        return self.second_look(images, self.first_look(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Return softmax of the logits, float32 [b, classes], without a temperature."""
        return self.logits(images).softmax(1)

    @torch.no_grad()
    def first_look(self, images: Tensor) -> Tensor:
        """Return the mean logits over the views that every image gets."""
        return self._mean(images, again=False)

    @torch.no_grad()
    def second_look(self, images: Tensor, logits: Tensor) -> Tensor:
        """Return the logits of a first look, improved by more views of the unsure images.

        (After hiverge's cifar10-speedrun, 2025.)
        """
        if self.transform.views != "unsure":
            return logits
        if self.margin is None:
            return (logits + self._mean(images, again=True)) / 2
        unsure = (margins(logits) < self.margin).nonzero().squeeze(1)
        if not len(unsure):
            return logits
        again = self._mean(images[unsure], again=True)
        return logits.index_copy(0, unsure, (logits[unsure] + again) / 2)

    def _mean(self, images: Tensor, *, again: bool) -> Tensor:
        views_of = self.transform.shifted_views_of if again else self.transform.views_of
        with self.place.autocast(), float32_products(self.place.device):
            views = views_of(images)
            if self.transform.views == "ten":
                return mean_of_probabilities(self._of_each([view for _, view in views]))
            weighted = [weight * self._network(view) for weight, view in views]
            return torch.stack(weighted).sum(0).float()

    def _of_each(self, views: list[Tensor]) -> Tensor:
        """Return the logits of each view [views, N, classes]; for a few images in one call."""
        if len(views[0]) > FEW:
            return torch.stack([self._network(view) for view in views])
        logits: Tensor = self._network(torch.cat(views))
        return logits.view(len(views), -1, logits.shape[1])


class NumpyAnswers:
    """The same with NumPy arrays, for a `Classifier`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits, float32 [N, classes], of images uint8 [N, H, W, C]."""
        there = to_device(np.require(images, requirements=["C", "W"]), self._answers.place.device)
        found: NDArray[np.float32] = self._answers.logits(there).cpu().numpy()
        return found


def mean_of_probabilities(logits: Tensor) -> Tensor:
    """Return logits, float32 [N, classes], whose softmax is the mean of the views' softmax.

    `logits`: [views, N, classes]. The logarithm of the sum of their exponentials tells how much
    evidence there is. For the result, this is also the mean over the views.
    """
    each = logits.float()
    evidence = each.logsumexp(2, keepdim=True)
    mean = (each - evidence).logsumexp(0) - math.log(len(each))
    return mean + evidence.mean(0)


def margins(logits: Tensor) -> Tensor:
    """Return the difference of the two largest logits of each row, [N]."""
    largest = logits.topk(min(2, logits.shape[1]), dim=1).values
    return largest[:, 0] - largest[:, -1]
