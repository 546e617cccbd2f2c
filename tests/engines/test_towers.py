"""One device and several towers in one process: the same numbers, at the same time."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcnn.config import Config
from deepcnn.data.open import load_dataset
from deepcnn.devices import Part, Place
from deepcnn.engines.engine import Job
from deepcnn.engines.single import Single
from deepcnn.engines.towers import LOADED_AHEAD, Exchange, Towers
from deepcnn.learning.state import TrainState
from deepcnn.runs import checkpoint
from deepcnn.training.start import resume, train
from tests.helpers.tiny import (
    ADAMW,
    CPU,
    PLAIN,
    QUICK,
    SUMMATION,
    TINY,
    Stateful,
    difference,
    last,
    make_steps,
    read_back,
    saved,
    state_of,
    tensors,
    tiny,
    with_optimizer,
)


@pytest.mark.parametrize(
    ("feed", "towers", "batch_size"),
    [("preloaded", 2, 32), ("queued", 3, 32), ("streamed", 2, 33), ("fed", 3, 33)],
)
def test_towers_train_to_the_numbers_of_one_device(
    tmp_path: Path, feed: str, towers: int, batch_size: int
) -> None:
    config = dataclasses.replace(PLAIN, feed=feed, batch_size=batch_size)  # type: ignore[arg-type]
    train(config, run_dir=tmp_path / "single")
    train(dataclasses.replace(config, towers=towers), run_dir=tmp_path / "towers")
    found, expected = tensors(tmp_path / "towers"), tensors(tmp_path / "single")
    assert "loss_averages" in found
    assert difference(found, expected) < SUMMATION


def test_towers_count_the_updates_of_adam(tmp_path: Path) -> None:
    """Its first steps are as long for a small gradient as for a large one, so ε is larger here."""
    config = with_optimizer(ADAMW, epsilon=0.01)
    train(config, run_dir=tmp_path / "single")
    train(dataclasses.replace(config, towers=2), run_dir=tmp_path / "towers")
    found, expected = tensors(tmp_path / "towers"), tensors(tmp_path / "single")
    assert found["updates.0"] == ADAMW.steps
    assert difference(found, expected) < SUMMATION


def load(step: int, part: Part) -> tuple[Tensor, Tensor]:
    """A part of a batch of 33 random images."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(33, 3, 24, 24, generator=generator)
    mine = part.slice(33)
    return images[mine], torch.arange(33)[mine] % 10


def towers_of(state: TrainState, job: Job, count: int = 2) -> Towers:
    return Towers(state, Place(CPU, "fp32"), job, (CPU,) * count)


def test_class_weights_and_smoothing_are_those_of_the_whole_batch() -> None:
    """Classes weigh 0 to 9, so the parts of a batch weigh differently, too."""
    job = Job(load, 33, lambda _: 1.0, label_smoothing=0.2, class_weights=torch.arange(10.0))
    single, state = state_of(PLAIN), state_of(PLAIN)
    expected = make_steps(Single(single, Place(CPU, "fp32"), job), single, 5)
    with closing(towers_of(state, job)) as engine:
        torch.testing.assert_close(make_steps(engine, state, 5), expected, rtol=1e-5, atol=1e-6)
    assert difference(state.tensors(), single.tensors()) < SUMMATION


def stateful() -> Stateful:
    arrays = load_dataset("synthetic", "train")
    return Stateful(
        [(arrays.images[i : i + 32], arrays.labels[i : i + 32]) for i in range(0, 1120, 32)]
    )


@pytest.mark.parametrize("feed", [None, stateful])
def test_towers_resume_to_the_same_bits(
    tmp_path: Path, feed: Callable[[], Stateful] | None
) -> None:
    """Also with a source that remembers where it is, although towers have read ahead of it."""
    config = tiny(towers=2, steps=40)
    for name in ("whole", "again"):
        train(config, run_dir=tmp_path / name, feed=feed and feed())
    assert last(tmp_path / "again") == last(tmp_path / "whole")
    first = dataclasses.replace(config, steps=20)
    train(first, run_dir=tmp_path / "parts", feed=feed and feed())
    assert last(tmp_path / "parts") != last(tmp_path / "whole")
    resume(
        tmp_path / "parts", changes=lambda c: dataclasses.replace(c, steps=40), feed=feed and feed()
    )
    assert last(tmp_path / "parts") == last(tmp_path / "whole")


def test_a_run_goes_on_with_other_towers_than_it_began_with(tmp_path: Path) -> None:
    train(dataclasses.replace(PLAIN, steps=20), run_dir=tmp_path / "single")
    train(dataclasses.replace(PLAIN, steps=10), run_dir=tmp_path / "changed")
    resume(tmp_path / "changed", changes=lambda c: dataclasses.replace(c, steps=20, towers=2))
    assert difference(tensors(tmp_path / "changed"), tensors(tmp_path / "single")) < SUMMATION


def test_towers_are_in_their_forward_pass_at_the_same_time() -> None:
    def meets(towers: int, timeout: float) -> bool:
        meeting = threading.Barrier(2, timeout=timeout)
        state = state_of(TINY)

        def meet(*_: object) -> None:
            meeting.wait()

        state.model.register_forward_pre_hook(meet)
        with closing(towers_of(state, Job(load, 33, lambda _: 1.0), towers)) as engine:
            try:
                make_steps(engine, state, 3)
            except threading.BrokenBarrierError:
                return False
        return True

    assert meets(towers=2, timeout=20)
    assert not meets(towers=1, timeout=0.2)  # who computes alone meets nobody


def test_each_tower_has_parameters_of_its_own() -> None:
    state = state_of(TINY)
    models: dict[int, nn.Module] = {id(state.model): state.model}

    def note(module: nn.Module, _: Any) -> None:
        models[id(module)] = module

    state.model.register_forward_pre_hook(note)
    with closing(towers_of(state, Job(load, 33, lambda _: 1.0), 3)) as engine:
        make_steps(engine, state, 2)
        places = [p.data_ptr() for model in models.values() for p in model.parameters()]
        assert len(set(places)) == len(places) == 4 * len(list(state.model.parameters()))
        assert engine.model is not state.model
        assert id(engine.model) in models


def test_inputs_of_the_next_steps_are_loaded_during_a_step_and_of_few_beyond() -> None:
    asked: list[int] = []
    ahead = threading.Event()

    def watched(step: int, part: Part) -> tuple[Tensor, Tensor]:
        asked.append(step)
        if step == LOADED_AHEAD + 1:
            ahead.set()
        return load(step, part)

    state = state_of(TINY)
    waited: list[bool] = []

    def wait(*_: object) -> None:
        waited.append(ahead.wait(20))

    state.model.register_forward_pre_hook(wait)
    with closing(towers_of(state, Job(watched, 33, lambda _: 1.0))) as engine:
        engine.step()
    assert all(waited)
    assert asked == sorted(asked)
    assert max(asked) == LOADED_AHEAD + 1, "as many as wait, and one that has no place yet"


class BrokenError(Exception):
    pass


@pytest.mark.parametrize("config", [TINY, QUICK])
def test_an_error_of_one_tower_is_raised_and_leaves_no_thread(config: Config) -> None:
    """With normalization over both, the other tower waits for the statistics of this one."""

    def fail(*_: object) -> None:
        if threading.current_thread().name.startswith("tower 1"):
            raise BrokenError

    before = threading.enumerate()
    state = state_of(config)
    state.model.register_forward_pre_hook(fail)
    engine = towers_of(state, Job(load, 33, lambda _: 1.0, sync_batch_norm=config is QUICK))
    raised: list[BaseException] = []

    def step() -> None:
        try:
            engine.step()
        except BrokenError as error:
            raised.append(error)

    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "the other tower must be told, and not wait in vain"
    assert len(raised) == 1
    engine.close()
    assert threading.enumerate() == before


def test_an_error_while_loading_is_raised_at_its_step() -> None:
    def fails(step: int, part: Part) -> tuple[Tensor, Tensor]:
        if step == 2:
            raise BrokenError
        return load(step, part)

    before = threading.enumerate()
    state = state_of(TINY)
    with closing(towers_of(state, Job(fails, 33, lambda _: 1.0))) as engine:
        make_steps(engine, state, 2)
        with pytest.raises(BrokenError):
            engine.step()
    assert threading.enumerate() == before


def test_gradients_are_summed_in_the_order_of_the_towers_whoever_is_first() -> None:
    values = [1e8, 3.0, -1e8, 5.0]  # float32: each order has a sum of its own
    model = nn.Linear(1, 1, bias=False)
    found = set()
    for arrival in itertools.permutations(range(4)):
        exchange = Exchange(model, 4)
        for tower in arrival:
            theirs = nn.Parameter(torch.zeros(1, 1))
            theirs.grad = torch.full((1, 1), values[tower])
            exchange.receiver("weight", tower)(theirs)
            assert theirs.grad is None
        assert model.weight.grad is not None
        found.add(float(model.weight.grad))
    total = torch.tensor(values[0])
    for value in values[1:]:
        total = total + value
    assert found == {float(total) / 4}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_summaries_of_towers_have_the_tags_of_one_device(tmp_path: Path) -> None:
    found = []
    for towers in (0, 2):
        run = tmp_path / str(towers)
        train(tiny(steps=1, summary_every=1, towers=towers), run_dir=run)
        found.append(read_back(run / "summaries" / "train").Tags())
    assert "activations/conv1" in found[0]["histograms"]
    assert found[1] == found[0]


@pytest.fixture(scope="module")
def quick_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`quick` on one device, and on two towers with common statistics and with their own."""
    path = tmp_path_factory.mktemp("quick")
    train(QUICK, run_dir=path / "single")
    for name, together in (("sync", True), ("own", False)):
        config = dataclasses.replace(QUICK, towers=2, sync_batch_norm=together)
        train(config, run_dir=path / name)
    return path


def test_batch_normalization_over_two_towers_is_that_of_one_device(quick_runs: Path) -> None:
    expected = tensors(quick_runs / "single")
    assert any("running_var" in name for name in expected)
    # Normalization and Muon take small differences further than the tutorial's network does.
    assert difference(tensors(quick_runs / "sync"), expected) < 2e-3
    assert difference(tensors(quick_runs / "own"), expected) > 2e-2


def test_towers_follow_what_learns_and_what_no_longer_does(quick_runs: Path) -> None:
    states = [checkpoint.load(path)[1] for path in saved(quick_runs / "sync")]
    for name, last_step in (("stem.bias", 2), ("group1_2.conv.weight", 8)):
        values = [state[f"model.{name}"] for state in states]
        for step, (before, after) in enumerate(itertools.pairwise(values), start=1):
            assert torch.equal(before, after) == (step >= last_step), (name, step)


def test_towers_with_normalization_resume_to_the_same_bits(
    quick_runs: Path, tmp_path: Path
) -> None:
    for name, start in (("sync", 2), ("sync", 7), ("own", 10)):
        copy = tmp_path / f"{name} {start}"
        shutil.copytree(quick_runs / name, copy)
        for path in saved(copy)[start:]:
            path.unlink()
        resume(copy)
        assert last(copy) == last(quick_runs / name)


def test_a_bad_batch_of_one_tower_stops_all_updates() -> None:
    def bad(step: int, part: Part) -> tuple[Tensor, Tensor]:
        images, labels = load(step, part)
        return images * (float("nan") if (step, part.index) == (2, 1) else 1.0), labels

    state = state_of(TINY)
    with closing(towers_of(state, Job(bad, 33, lambda _: 1.0))) as engine:
        make_steps(engine, state, 2)
        good = {name: tensor.clone() for name, tensor in state.tensors().items()}
        make_steps(engine, state, 2)
    assert int(state.failed) == 2
    for name, tensor in state.tensors().items():
        assert name == "loss_averages" or torch.equal(tensor, good[name]), name


def test_towers_of_an_image_each(tmp_path: Path) -> None:
    """As many towers as examples: each part is one example."""
    config = dataclasses.replace(PLAIN, steps=2, batch_size=3, towers=3)
    train(config, run_dir=tmp_path / "towers")
    train(dataclasses.replace(config, towers=0), run_dir=tmp_path / "single")
    assert difference(tensors(tmp_path / "towers"), tensors(tmp_path / "single")) < SUMMATION
