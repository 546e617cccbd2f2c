"""What a step asks of the host where the tensors are on an accelerator.

torch's `meta` device has shapes and types but no values. So whatever needs a value on the host, or
brings tensors of two devices together, fails on it or can be seen, as it would wait on a GPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from typing import Any, Literal

import pytest
import torch
import torch._dynamo  # which knows `is_autocast_enabled` by identity, before it is replaced
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.open import open_dataset
from deepcnn.devices import Place, Precision
from deepcnn.engines.choose import choose
from deepcnn.engines.engine import Engine, Job
from deepcnn.inputs.loader import Loader
from deepcnn.learning import objective
from deepcnn.learning.assembly import make_schedule
from deepcnn.team.team import Team
from tests.helpers.distorting import EVERYTHING
from tests.helpers.tiny import TINY, feed_of, state_of, transform_of, with_inputs, with_optimizer

META = torch.device("meta")


class _Place(Place):
    """Autocast knows no `meta`; so the network computes in float32, whatever the precision."""

    def autocast(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operations that have a part on the host, and how many there were at all."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_host: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count += 1
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" for x in tensors):
            self.on_host.append(str(func))
        return result


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `meta` stand for an accelerator: no autocast, and parameters that stay what they are."""
    enabled = torch.is_autocast_enabled
    monkeypatch.setattr(
        torch, "is_autocast_enabled", lambda kind="cpu": kind != "meta" and enabled(kind)
    )
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@contextlib.contextmanager
def engine_of(config: Config, precision: Precision) -> Iterator[Engine]:
    """Make the engine that a training would, on the accelerator, with synthetic data."""
    dataset = open_dataset(config)
    source = dataset.split("train")
    state, place = state_of(config), _Place(META, precision)
    with closing(feed_of(config)) as feed:
        loader = Loader(
            feed,
            transform_of(config),
            seed=0,
            training_steps=config.steps,
            steps=4,
            classes=len(source.classes),
        )
        choice = choose(config, place, Team())
        job = Job(
            loader.load,
            config.batch_size,
            make_schedule(config, len(source)),
            class_weights=objective.balanced_weights(dataset.counts("train")),
            steps_per_plan=choice.steps_per_plan,
        )
        state.model.train()
        yield choice.engine(state, place, job, Team())


def watched(engine: Engine, steps: int) -> _Watch:
    """Make so many steps, and watch the last one."""
    parameters = list(engine.model.parameters())
    for _ in range(steps - 1):
        engine.step()
        for parameter in parameters:
            parameter.grad = None
    watch = _Watch()
    with watch:
        engine.step()
    assert {p.device for p in parameters} == {META}
    return watch


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize(
    "preset", ["tutorial", "quick", "speedrun94", "speedrun96", "cuda_convnet"]
)
def test_a_step_asks_nothing_of_the_host(preset: str, ahead: int, precision: Precision) -> None:
    """Within a plan, or the choices that are made for several steps."""
    config = dataclasses.replace(
        presets.PRESETS[preset](), data="synthetic", precision="fp32", steps_per_plan=ahead
    )
    with engine_of(config, precision) as engine:
        watch = watched(engine, 3)
    assert watch.count > 100
    assert watch.on_host == []


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("method", ["adam", "adamw", "rmsprop"])
def test_no_method_asks_anything_of_the_host(method: str) -> None:
    """Not even how many updates were made, nor the rate of a schedule."""
    rates = {"learning_rate": 1e-3, "bias_learning_rate": 2e-3, "weight_decay": 1e-4}
    config = with_optimizer(TINY, method=method, momentum=0.9, **rates)
    with engine_of(dataclasses.replace(config, steps_per_plan=4), "fp16") as engine:
        watch = watched(engine, 3)
    assert watch.count > 100
    assert watch.on_host == []


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("feed", ["streamed", "queued"])
@pytest.mark.parametrize("inputs", [{}, EVERYTHING])
def test_all_that_a_step_takes_from_the_host_is_its_batch(
    feed: Literal["streamed", "queued"], inputs: dict[str, Any]
) -> None:
    """Also where it distorts and mixes images in every way."""
    config = dataclasses.replace(presets.tutorial(), data="synthetic", feed=feed, precision="fp32")
    with engine_of(with_inputs(config, **inputs), "fp32") as engine:
        watch = watched(engine, 3)
    copies = [name for name in watch.on_host if "lift_fresh" not in name]
    assert copies == ["aten._to_copy.default"] * 5  # images, labels, index, epoch, position
