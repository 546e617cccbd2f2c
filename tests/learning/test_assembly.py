from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from deepcnn import presets
from deepcnn.errors import ConfigError
from deepcnn.learning.assembly import learn_until, make_optimizers, make_schedule, make_state
from deepcnn.models.build import build_model
from tests.helpers.parameters import ONE, OPEN
from tests.helpers.tiny import QUICK, TINY, state_of, tiny, with_optimizer


@pytest.mark.parametrize(
    ("batch_size", "decay_steps"), [(128, 136_718), (256, 68_359), (512, 34_179)]
)
def test_the_tutorials_rate_drops_after_350_epochs(batch_size: int, decay_steps: int) -> None:
    config = dataclasses.replace(presets.tutorial(), batch_size=batch_size)
    schedule = make_schedule(config, 50_000)
    steps = (0, decay_steps - 1, decay_steps)
    assert [schedule(step) for step in steps] == pytest.approx([1, 1, 0.1])


def test_a_linear_rate_reaches_zero_at_the_last_step() -> None:
    schedule = make_schedule(with_optimizer(tiny(steps=4), schedule="linear"), 8192)
    assert [schedule(step) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]


def test_each_parameter_that_learns_has_one_optimizer_and_the_rate_of_its_kind() -> None:
    """Filters are Muon's, the last layer's weights have a rate of their own."""
    rates = {"learning_rate": 0.5, "head_learning_rate": 2.0, "muon_learning_rate": 1e-3}
    config = with_optimizer(QUICK, **rates, momentum=0.6, weight_decay=0.0, freeze=())
    model = build_model("speednet", widths=(8, 8, 8), shape=(3, 16, 16))
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in learning.items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers = make_optimizers(config, model)
    owned = [name for optimizer in optimizers for name in optimizer.tensors["momentum"]]
    assert sorted(owned) == sorted(learning)
    for optimizer in optimizers:
        optimizer.step(ONE, OPEN)
    for name, parameter in learning.items():
        moved = before[name] - parameter.detach()
        if name == "head.weight":
            torch.testing.assert_close(moved, torch.full_like(moved, 2.0 * 1.6))
        elif parameter.ndim < 4:
            torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * 1.6))
        else:  # scaled to the norm √out first
            norm = float(parameter.detach().norm())
            assert norm == pytest.approx(len(parameter) ** 0.5, rel=1e-2)
    fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert "stem.weight" in fixed


def test_a_network_that_cannot_learn_is_refused() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="model: expected parameters that learn, found none"):
        make_state(TINY, model)


def test_the_state_has_averages_only_where_they_are_asked_for() -> None:
    kept = {name.partition(".")[0] for name in state_of(TINY).tensors()}
    assert kept == {"model", "momentum", "average", "loss_averages", "loss_scale", "good_steps"}
    without = {name.partition(".")[0] for name in state_of(tiny(average_decay=None)).tensors()}
    assert without == kept - {"average"}


def test_what_is_to_be_fixed_sooner_has_to_be_a_layer_that_learns() -> None:
    model = build_model("speednet", widths=(8, 8, 8))
    config = with_optimizer(QUICK, freeze=(("group2", 0.5), ("conv1", 0.8)))
    with pytest.raises(
        ConfigError, match=r"optimizer\.freeze: .*speednet one of stem, group1_1.*found 'conv1'"
    ):
        learn_until(config, model)
    until = learn_until(with_optimizer(QUICK, freeze=(("stem", 0.1), ("group2", 0.5))), model)
    assert until["stem.bias"] == 0.1
    assert until["group2_2.conv.weight"] == 0.5
    assert "group1_1.conv.weight" not in until


def test_what_decays_has_to_be_a_layer_that_learns_and_not_muons() -> None:
    model = build_model("speednet", widths=(8, 8, 8))
    config = with_optimizer(QUICK, decayed=("head", "group1_1.conv"))
    with pytest.raises(
        ConfigError, match=r"optimizer\.decayed: .*speednet one of stem, .*found 'group1_1.conv'"
    ):
        make_optimizers(config, model)


def test_what_stops_sooner_has_the_rates_of_all_others_where_they_rise_first() -> None:
    """A straight line that does not begin at its highest point has no shorter form."""
    moved = []
    for warm_up in (0.0, 0.1):
        first = nn.Linear(2, 2)
        model = nn.Sequential(first, nn.Linear(2, 2))
        before = first.bias.detach().clone()
        config = with_optimizer(TINY, schedule="linear", warm_up=warm_up, freeze=(("0", 0.5),))
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        for optimizer in make_optimizers(config, model):
            optimizer.step(torch.tensor(0.5), OPEN)
        moved.append(not torch.equal(first.bias, before))
    assert moved == [False, True]
