"""Batch normalization by the statistics of several parts, against torch's of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcnn.engines.towers import Meeting
from deepcnn.models.sync_norm import SyncBatchNorm


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result(60) for future in [pool.submit(w) for w in work]]


@pytest.mark.parametrize("sizes", [[8], [4, 4], [1, 5, 2]])
def test_normalization_in_parts_is_torchs_of_the_whole_batch_in_float64(
    sizes: list[int],
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(sum(sizes), 3, 4, 5, generator=generator) * 2 + 30  # E[x²] - E[x]² would cancel
    direction = torch.randn(x.shape, generator=generator)
    normal = nn.BatchNorm2d(3, momentum=0.4)
    nn.init.normal_(normal.weight, generator=generator)
    nn.init.normal_(normal.bias, generator=generator)
    whole = nn.BatchNorm2d(3, momentum=0.4).double()
    whole.load_state_dict(normal.state_dict())
    whole_x = x.double().requires_grad_()
    whole_y = whole(whole_x)
    torch.autograd.backward((whole_y * direction).sum())

    meeting = Meeting(len(sizes))
    parts: list[tuple[SyncBatchNorm, Tensor]] = []
    for i, some in enumerate(torch.split(x, sizes)):
        own = nn.BatchNorm2d(3, momentum=0.4)
        own.load_state_dict(normal.state_dict())
        layer = SyncBatchNorm(own, meeting.sum_for(i))
        assert layer.weight is own.weight
        parts.append((layer, some.clone().requires_grad_()))

    def compute(i: int, along: Tensor) -> Tensor:
        layer, some = parts[i]
        y: Tensor = layer(some)
        torch.autograd.backward((y * along).sum())
        return y

    along = torch.split(direction, sizes)
    outputs = in_threads(
        [lambda i=i: compute(i, along[i]) for i in range(len(sizes))]  # type: ignore[misc]
    )

    def close(found: Tensor, expected: Tensor | None) -> None:
        assert expected is not None
        torch.testing.assert_close(found.double(), expected.double(), rtol=2e-5, atol=2e-5)

    def joined(tensors: Iterator[Tensor | None]) -> list[Tensor]:
        return [tensor for tensor in tensors if tensor is not None]

    close(torch.cat(outputs), whole_y)
    close(torch.cat(joined(some.grad for _, some in parts)), whole_x.grad)
    close(torch.stack(joined(layer.weight.grad for layer, _ in parts)).sum(0), whole.weight.grad)
    close(torch.stack(joined(layer.bias.grad for layer, _ in parts)).sum(0), whole.bias.grad)
    for layer, _ in parts:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            close(layer.get_buffer(name), whole.get_buffer(name))
        layer.eval()
        with torch.no_grad():
            close(layer(x), whole.eval()(x.double()))
