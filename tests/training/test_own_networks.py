"""Networks of one's own: a module, what makes one, or where that is imported from."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import deepcnn
from deepcnn import Network
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Noted
from deepcnn.models.tutorial import Tutorial
from deepcnn.runs.run import Run
from tests.helpers.tiny import difference, last, last_values, logged, tensors, tiny, with_inputs

SHAPE = (3, 24, 24)  # what `tiny` gives a network
FEW = tiny(steps=3)


def small(shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


class Seen(Network):
    """Takes images of any size from four pixels on, and says all that a network may say."""

    penalties: ClassVar[Mapping[str, float]] = {"filters.weight": 0.5}
    smallest_side = 4
    sides: ClassVar[list[int]] = []

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(shape[0], 8, 3, bias=False)
        self.head = nn.Linear(8, classes)

    def initialize(self, images: Tensor) -> None:
        with torch.no_grad():
            self.head.bias.fill_(len(images))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.sides.append(images.shape[2])
        logits: Tensor = self.head(self.filters(images).square().mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("model", "stored"),
    [
        (small(SHAPE, 10), "(Sequential)"),
        (small, f"{__name__}:small"),
        (Seen, f"{__name__}:Seen"),
        (lambda shape, classes: small(shape, classes), "(<lambda>)"),
        (f"{__name__}:small", f"{__name__}:small"),
    ],
)
def test_any_module_or_what_makes_one_is_trained_stored_and_asked_again(
    tmp_path: Path, model: Any, stored: str
) -> None:
    result = deepcnn.train(tiny(steps=60, save_every=20), run_dir=tmp_path / "run", model=model)
    assert result.evaluated is not None
    assert result.evaluated.total == 512
    assert Run(result.run).config().model.name == stored
    assert deepcnn.evaluate(result.run, model=model).correct == result.evaluated.correct
    whole = last(result.run)
    (result.run / "checkpoints" / "step-000000060.safetensors").unlink()
    fresh = small(SHAPE, 10) if isinstance(model, nn.Module) else model
    assert deepcnn.resume(result.run, model=fresh).evaluated == result.evaluated
    assert last(result.run) == whole


def test_a_module_is_trained_in_place_and_only_read_when_it_is_evaluated(tmp_path: Path) -> None:
    model = small(SHAPE, 10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = deepcnn.train(tiny(steps=100), run_dir=tmp_path / "run", model=model)
    assert result.evaluated is not None
    assert result.evaluated.correct >= 450  # one seed gave 506; chance is 51
    stored = tensors(result.run)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, stored[f"model.{name}"])
        assert not torch.equal(parameter, before[name])
    other = small(SHAPE, 10)
    theirs = {name: p.detach().clone() for name, p in other.named_parameters()}
    deepcnn.evaluate(result.run, model=other)
    assert all(torch.equal(p, theirs[name]) for name, p in other.named_parameters())


def test_a_class_gets_what_it_asks_for_and_trains_to_the_bits_of_its_name(tmp_path: Path) -> None:
    deepcnn.train(FEW, run_dir=tmp_path / "named")
    deepcnn.train(FEW, run_dir=tmp_path / "given", model=Tutorial)
    assert last_values(tmp_path / "given") == last_values(tmp_path / "named")


def test_weights_that_torch_draws_are_a_function_of_the_seed(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        deepcnn.train(tiny(steps=1, seed=seed), run_dir=tmp_path / name, model=small)
        torch.rand(5)
    assert last(tmp_path / "one") == last(tmp_path / "same")
    assert difference(tensors(tmp_path / "other"), tensors(tmp_path / "one")) > 0.1
    torch.random.set_rng_state(state)


def test_a_network_may_say_how_it_wants_to_be_trained(tmp_path: Path) -> None:
    """Penalties, the smallest images that it takes, and weights that are made from the data."""
    config = with_inputs(tiny(steps=4, log_every=1), scales=((0.0, 0.1), (0.5, 1.0)))
    Seen.sides.clear()
    run = deepcnn.train(config, run_dir=tmp_path / "run", model=Seen).run
    assert Seen.sides == [4, 4, 24, 24]
    (first, *_) = logged(run, "Stepped")
    assert list(first["losses"]) == ["cross_entropy", "filters/weight_loss", "total_loss"]
    assert first["losses"]["filters/weight_loss"] > 0
    assert tensors(run)["model.head.bias"] == pytest.approx(5000, abs=1)
    with pytest.raises(
        ConfigError, match=r"inputs\.scales: the network .*small takes images of on"
    ):
        deepcnn.train(config, run_dir=tmp_path / "other", model=small)
    assert not (tmp_path / "other").exists()


def too_few(shape: tuple[int, int, int]) -> nn.Module:
    return small(shape, 9)


def fails(shape: tuple[int, int, int]) -> nn.Module:
    return nn.Linear(7, 10)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (too_few, r"model: Sequential: expected logits \[2, 10\] for images .*, found \[2, 9\]"),
        (fails, r"model: Linear: expected logits \[2, 10\] .*, found RuntimeError: "),
        (lambda: 3, "model: expected an nn.Module, found int"),
        ("no_such_module:f", r"'no_such_module:f' cannot be imported .*\(PYTHONPATH\)"),
        ("math:no_such_name", "'math:no_such_name' cannot be imported"),
        ("math:pi", "'math:pi': expected a function"),
        (nn.Flatten, r"expected logits \[2, 10\] for images .*, found \[2, 1728\]"),
    ],
)
def test_what_is_no_network_for_these_data_is_refused_before_a_run_is_made(
    tmp_path: Path, model: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        deepcnn.train(FEW, run_dir=tmp_path / "run", model=model)
    assert not (tmp_path / "run").exists()


def test_a_network_that_came_from_python_is_needed_again(tmp_path: Path) -> None:
    run = deepcnn.train(FEW, run_dir=tmp_path / "run", model=small(SHAPE, 10)).run
    for again in (deepcnn.resume, deepcnn.evaluate):
        with pytest.raises(
            ConfigError, match=r"came from Python, \(Sequential\).*model=… in Python"
        ):
            again(run)


MODULE = """
import math
from pathlib import Path
from torch import nn

Path("imported").touch()

def make(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
"""


def test_the_code_of_a_stored_name_only_runs_when_it_is_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "networks_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    name, imported = "networks_of_mine:make", Path("imported")
    run = deepcnn.train(FEW, run_dir="run", model=name).run
    assert Run(run).config().model.name == name
    assert imported.exists()
    imported.unlink()
    del sys.modules["networks_of_mine"]
    for again in (deepcnn.resume, deepcnn.evaluate):
        with pytest.raises(ConfigError, match=f"Its code only runs if you name it .*{name}"):
            again(run)
    assert "networks_of_mine" not in sys.modules
    assert not imported.exists()
    assert deepcnn.evaluate(run, model=name).total == 512
    assert deepcnn.resume(run, model=name).step == 3
    assert imported.exists()


class SinglePrecision(nn.Module):
    """Computes in float32 only, as many a network does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(SHAPE), 10)

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        logits: Tensor = self.linear(images.flatten(1))
        return logits


def test_where_its_graph_cannot_be_drawn_a_network_is_trained_all_the_same(tmp_path: Path) -> None:
    heard: list[Event] = []
    config = tiny(steps=2, summary_every=1)
    result = deepcnn.train(
        config, run_dir=tmp_path / "run", model=SinglePrecision(), emit=heard.append
    )
    assert result.evaluated is not None
    (note,) = [event.text for event in heard if isinstance(event, Noted)]
    assert note.startswith("The graph of the network cannot be drawn: ")
