"""What training minimizes, and what evaluation counts."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOTAL = "total_loss"


def losses(
    model: nn.Module, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return every loss by name, the sum of all as `total_loss`, each float32 [].

    `logits`: [B, classes]; `labels`: int64 [B]. `cross_entropy` is the mean over the batch of the
    softmax cross-entropy in nats. A model's `penalties` map the name of a weight to the factor of
    its penalty ½‖w‖², which appears under the name of the weight's layer.
    """
    found = {
        "cross_entropy": F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    }
    penalties: Mapping[str, float] = getattr(model, "penalties", {})
    for name, factor in penalties.items():
        weight = model.get_parameter(name)
        found[f"{name.removesuffix('.weight')}/weight_loss"] = factor / 2 * weight.square().sum()
    found[TOTAL] = torch.stack(list(found.values())).sum()
    return found


def names(model: nn.Module) -> list[str]:
    """Return the names of the losses, in the order of `losses`."""
    layers = [name.removesuffix(".weight") for name in getattr(model, "penalties", {})]
    return ["cross_entropy", *(f"{layer}/weight_loss" for layer in layers), TOTAL]


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return in how many rows the largest logit is the label's, int64 []; a NaN is never right."""
    return (logits.argmax(1) == labels).logical_and(logits.isfinite().all(1)).sum()
