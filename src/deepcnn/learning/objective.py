"""What training minimizes, and what evaluation counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepcnn.models.network import penalties_of

TOTAL = "total_loss"


def losses(
    model: nn.Module,
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    weight: float = 1.0,
) -> dict[str, Tensor]:
    """Return every loss by name, the sum of all as `total_loss`, each float32 [].

    `logits`: [B, classes]. `labels`: int64 [B], or for mixed examples the shares of the classes,
    float32 [B, classes].

    `cross_entropy` is the mean over the batch of the softmax cross-entropy, in nats. With
    `class_weights`, float32 [classes], each example's loss is multiplied with the weight of its
    class. The sum is still divided by the number of examples, so the result does not depend on how
    a batch is divided. The loss of a mixed example is the mean of its classes' losses, weighted by
    their shares.

    `weight` multiplies the mean over the batch. With it, the mean over unequal parts of a batch is
    the mean over the whole batch. A model's `penalties` map the name of a weight to the factor of
    its penalty ½‖w‖². The penalty has the name of the weight's layer.
    """
    if labels.ndim == 2:
        mean = _of_shares(logits.float(), labels, label_smoothing, class_weights).mean()
    elif class_weights is None:
        mean = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    else:
        each = F.cross_entropy(
            logits.float(), labels, label_smoothing=label_smoothing, reduction="none"
        )
        mean = (each * class_weights[labels]).mean()
    found = {"cross_entropy": mean if weight == 1.0 else mean * weight}
    for name, factor in penalties_of(model).items():
        penalized = model.get_parameter(name)
        found[f"{name.removesuffix('.weight')}/weight_loss"] = factor * _half_square(penalized)
    found[TOTAL] = torch.stack(list(found.values())).sum()
    return found


def _of_shares(
    logits: Tensor, shares: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> Tensor:
    """Return for each example Σ share · weight · loss over the classes, each taken as its label.

    The loss of a label is that of `F.cross_entropy` with smoothing: [B].
    """
    if class_weights is not None:
        shares = shares * class_weights
    surprise = -F.log_softmax(logits, 1)
    of_labels = (shares * surprise).sum(1)
    return torch.lerp(of_labels, shares.sum(1) * surprise.mean(1), label_smoothing)


def _half_square(weight: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return weight.square().sum() / 2
    half: Tensor = _HalfSquare.apply(weight)  # type: ignore[no-untyped-call]
    return half


class _HalfSquare(torch.autograd.Function):
    """½‖w‖² of [out, in], with the derivative w: one pass over memory each; autograd makes five.

    It is computed by rows, since the norm of the whole matrix would be less precise.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
        return norms.square().sum() / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        weight: Tensor = ctx.saved_tensors[0]
        return weight * gradient


def names(model: nn.Module) -> list[str]:
    """Return the names of the losses, in the order of `losses`."""
    layers = [name.removesuffix(".weight") for name in penalties_of(model)]
    return ["cross_entropy", *(f"{layer}/weight_loss" for layer in layers), TOTAL]


def balanced_weights(counts: NDArray[np.int64]) -> Tensor:
    """Return a weight for each class, inverse to its count, 1 on average over the examples.

    `counts`: int64 [classes]. Returns float32 [classes]: N / (present · count), where `present` is
    the number of classes with an example; 0 for classes without one (King and Zeng, "Logistic
    Regression in Rare Events Data", 2001).
    """
    present = np.maximum(counts, 1)
    weights = np.where(counts > 0, counts.sum() / ((counts > 0).sum() * present), 0.0)
    return torch.from_numpy(weights).to(torch.float32)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return in how many rows the largest logit is the label's, int64 []; a NaN is never right.

    `labels`: as in `losses`; for a mixed example, the class with the largest share counts.
    """
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    return (logits.argmax(1) == labels).logical_and(logits.isfinite().all(1)).sum()
