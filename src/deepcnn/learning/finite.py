"""Finds tensors that hold a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deepcnn.hardware import kernels_are_dear


def sums(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return a number, [], for each tensor, which is finite only if all its values are.

    It is also infinite if the sum is too large for the type: for float32, with values of 1e32 and
    more. On a GPU one kernel takes all tensors; on a processor each tensor is one pass over memory.
    """
    some = [tensor for tensor in tensors if tensor.numel()]
    if some and kernels_are_dear(some[0].device):
        return list(torch._foreach_norm(some, 1))
    return [tensor.sum() for tensor in some]


@torch.no_grad()
def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of those tensors that hold a NaN or an infinity, in order.

    The tensors lie on one device. The function waits for its answer.
    """
    named = {n: t.detach() for n, t in tensors.items() if t.is_floating_point() and t.numel()}
    if not named:
        return []
    finite = torch.stack(sums([*named.values()])).isfinite().tolist()
    suspects = [name for name, fine in zip(named, finite, strict=True) if not fine]
    return [name for name in suspects if not named[name].isfinite().all()]  # or only large
