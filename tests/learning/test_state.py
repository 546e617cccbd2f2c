from __future__ import annotations

import pytest
import torch

from deepcnn.errors import CheckpointError
from deepcnn.learning.state import check_fit
from tests.helpers.parameters import ONE, OPEN
from tests.helpers.tiny import CPU, TINY, state_of

TENSORS = {
    "model.weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2),
    "model.seen": torch.tensor(5),
    "average.weight": torch.full((3,), float("nan")),
}


def test_what_does_not_fit_is_named() -> None:
    def refuse(found: dict[str, torch.Tensor], message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            check_fit(TENSORS, found, "it")

    refuse(
        TENSORS | {"model.seen": torch.zeros(2)},
        r"model.seen: expected int64 \[\], found float32 \[2\]",
    )
    refuse(TENSORS | {"more": torch.zeros(2)}, r"more: expected nothing, found float32 \[2\]")
    refuse({}, r"average.weight: expected float32 \[3\], found nothing")


def test_a_state_that_is_refused_changes_nothing() -> None:
    state = state_of(TINY)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    found = {name: tensor + 1 for name, tensor in before.items()}
    found["average.softmax_linear.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"average\.softmax_linear\.weight: expected float32"):
        state.load(7, found, "it")
    assert state.step == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())


def test_after_a_move_optimizers_and_averages_still_follow_the_parameters() -> None:
    state = state_of(TINY)
    state.to(CPU)
    parameters = dict(state.model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in state.optimizers:
        optimizer.step(ONE, OPEN)
        assert all(momentum.eq(1).all() for momentum in optimizer.tensors["momentum"].values())
    assert state.averages is not None
    state.averages.update(torch.tensor(0.5), OPEN)
    tensors = state.tensors()
    for name, parameter in parameters.items():
        assert not torch.isclose(parameter, before[name]).any()
        halfway = (before[name] + parameter.detach()) / 2
        torch.testing.assert_close(tensors[f"average.{name}"], halfway)
        assert tensors[f"momentum.{name}"].eq(1).all()
