"""One device and several towers in one process: the same numbers, at the same time."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from deepcnn import presets
from deepcnn.cli.main import main as cli
from deepcnn.config import Config
from deepcnn.data.open import load_dataset
from deepcnn.data.source import in_memory
from deepcnn.devices import Part, Place
from deepcnn.engines.single import Engine, Job, Single
from deepcnn.engines.towers import AHEAD, Towers, _Exchange, _Meeting
from deepcnn.events import Started, Stepped
from deepcnn.inputs.transform import Inputs
from deepcnn.learning.state import TrainState
from deepcnn.models.layers import SyncBatchNorm
from deepcnn.runs import checkpoint
from deepcnn.training.start import start as training
from tests.test_cli import train_no_more
from tests.test_summaries import read_back
from tests.test_training_feeds import Stateful

CPU = torch.device("cpu")
TINY = dataclasses.replace(
    presets.tiny(), summary_every=0, device="cpu", precision="fp32", threads=1, steps=100
)
PLAIN = dataclasses.replace(TINY, optimizer=dataclasses.replace(TINY.optimizer, momentum=0.0))
# Ten steps of `quick` in small: its stem's bias learns in the first three of them.
QUICK = dataclasses.replace(
    presets.quick(),
    data="synthetic",
    model=dataclasses.replace(presets.quick().model, widths=(8, 8, 16)),
    steps=10,
    batch_size=64,
    summary_every=0,
    save_every=1,
    keep=10,
    device="cpu",
    precision="fp32",
    threads=1,
)
# Another order of summation moves a gradient by some roundings of 6e-8 of its largest value, and a
# hundred steps to 1e-6. Where that turns the choice of a maximum or of a ReLU, an example's share
# goes elsewhere: of twelve seeds three came to 1e-4 to 8e-4. (With momentum such choices multiply,
# so there is none.) A part that counts 3 % too much, as 16 of 33 in two, leads to 4e-2.
SUMMATION = 5e-3


def tensors(run: Path) -> dict[str, Tensor]:
    return checkpoint.load(checkpoint.paths(run / "checkpoints")[-1])[1]


def last(run: Path) -> bytes:
    return checkpoint.paths(run / "checkpoints")[-1].read_bytes()


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, in units of the largest value of its tensor."""
    assert found.keys() == expected.keys()
    return max(
        float((found[n] - e).abs().max() / e.abs().max().clamp(min=1e-30))
        for n, e in expected.items()
    )


@given(length=st.integers(1, 1000), count=st.integers(1, 40))
def test_parts_join_without_gap_or_overlap_and_are_about_equal(length: int, count: int) -> None:
    slices = [Part(i, count, CPU).slice(length) for i in range(count)]
    assert [i for s in slices for i in range(length)[s]] == list(range(length))
    sizes = {s.stop - s.start for s in slices}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("feed", "towers", "batch_size"),
    [("preloaded", 2, 32), ("queued", 3, 32), ("streamed", 2, 33), ("fed", 3, 33)],
)
def test_towers_train_to_the_numbers_of_one_device(
    tmp_path: Path, feed: str, towers: int, batch_size: int
) -> None:
    config = dataclasses.replace(PLAIN, feed=feed, batch_size=batch_size)  # type: ignore[arg-type]
    training.train(config, run_dir=tmp_path / "single")
    training.train(dataclasses.replace(config, towers=towers), run_dir=tmp_path / "towers")
    found, expected = tensors(tmp_path / "towers"), tensors(tmp_path / "single")
    assert "loss_averages" in found
    assert difference(found, expected) < SUMMATION


def state_of(config: Config) -> TrainState:
    source = in_memory(load_dataset("synthetic", "train"))
    inputs = Inputs.of(source, **dataclasses.asdict(config.inputs))
    return training._new_state(config, inputs, source, CPU)


def load(step: int, part: Part) -> tuple[Tensor, Tensor]:
    """A part of a batch of 33 random images."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(33, 3, 24, 24, generator=generator)
    mine = part.slice(33)
    return images[mine], torch.arange(33)[mine] % 10


def towers_of(state: TrainState, job: Job, count: int = 2) -> Towers:
    return Towers(state, Place(CPU, "fp32"), job, (CPU,) * count)


def steps(engine: Engine, state: TrainState, count: int) -> list[Tensor]:
    found = []
    for _ in range(count):
        found.append(engine.step().clone())
        for parameter in state.model.parameters():
            parameter.grad = None
    return found


def test_class_weights_and_smoothing_are_those_of_the_whole_batch() -> None:
    """Classes weigh 0 to 9, so the parts of a batch weigh differently, too."""
    job = Job(load, 33, lambda _: 1.0, label_smoothing=0.2, class_weights=torch.arange(10.0))
    single, state = state_of(PLAIN), state_of(PLAIN)
    expected = steps(Single(single, Place(CPU, "fp32"), job), single, 5)
    with closing(towers_of(state, job)) as engine:
        torch.testing.assert_close(steps(engine, state, 5), expected, rtol=1e-5, atol=1e-6)
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
    config = dataclasses.replace(TINY, towers=2, steps=40)
    for name in ("whole", "again"):
        training.train(config, run_dir=tmp_path / name, feed=feed and feed())
    assert last(tmp_path / "again") == last(tmp_path / "whole")
    first = dataclasses.replace(config, steps=20)
    training.train(first, run_dir=tmp_path / "parts", feed=feed and feed())
    assert last(tmp_path / "parts") != last(tmp_path / "whole")
    training.resume(
        tmp_path / "parts", changes=lambda c: dataclasses.replace(c, steps=40), feed=feed and feed()
    )
    assert last(tmp_path / "parts") == last(tmp_path / "whole")


def test_a_run_goes_on_with_other_towers_than_it_began_with(tmp_path: Path) -> None:
    training.train(dataclasses.replace(PLAIN, steps=20), run_dir=tmp_path / "single")
    training.train(dataclasses.replace(PLAIN, steps=10), run_dir=tmp_path / "changed")
    training.resume(
        tmp_path / "changed", changes=lambda c: dataclasses.replace(c, steps=20, towers=2)
    )
    assert difference(tensors(tmp_path / "changed"), tensors(tmp_path / "single")) < SUMMATION


def test_towers_are_in_their_forward_pass_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=20)
    state = state_of(TINY)

    def meet(*_: object) -> None:
        meeting.wait()

    state.model.register_forward_pre_hook(meet)
    with closing(towers_of(state, Job(load, 33, lambda _: 1.0))) as engine:
        steps(engine, state, 3)
        # The same with one thread for both, a loop over the towers, meets nobody.
        first, second = engine._towers
        second.thread.shutdown()
        second.thread = first.thread
        meeting._timeout = 0.2  # type: ignore[attr-defined]
        with pytest.raises(threading.BrokenBarrierError):
            engine.step()


def test_each_tower_has_parameters_of_its_own() -> None:
    state = state_of(TINY)
    with closing(towers_of(state, Job(load, 33, lambda _: 1.0), 3)) as engine:
        steps(engine, state, 2)
        models = [state.model, *(tower.model for tower in engine._towers)]
        places = [parameter.data_ptr() for model in models for parameter in model.parameters()]
        assert len(set(places)) == len(places) == 4 * len(list(state.model.parameters()))
        assert engine.model is models[1]


def test_inputs_of_the_next_steps_are_loaded_during_a_step_and_of_few_beyond() -> None:
    asked: list[int] = []
    ahead = threading.Event()

    def watched(step: int, part: Part) -> tuple[Tensor, Tensor]:
        asked.append(step)
        if step == AHEAD + 1:
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
    assert max(asked) == AHEAD + 1, "as many as wait, and one that has no place yet"


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
    job = Job(load, 33, lambda _: 1.0, sync_batch_norm=config is QUICK)
    with closing(towers_of(state, job)) as engine:
        engine._meeting._barrier._timeout = 30  # type: ignore[attr-defined]
        began = time.monotonic()
        with pytest.raises(BrokenError):
            engine.step()
        assert time.monotonic() - began < 30, "the other tower was told, and did not wait in vain"
    assert threading.enumerate() == before


def test_an_error_while_loading_is_raised_at_its_step() -> None:
    def fails(step: int, part: Part) -> tuple[Tensor, Tensor]:
        if step == 2:
            raise BrokenError
        return load(step, part)

    before = threading.enumerate()
    state = state_of(TINY)
    with closing(towers_of(state, Job(fails, 33, lambda _: 1.0))) as engine:
        steps(engine, state, 2)
        with pytest.raises(BrokenError):
            engine.step()
    assert threading.enumerate() == before


def test_gradients_are_summed_in_the_order_of_the_towers_whoever_is_first() -> None:
    values = [1e8, 3.0, -1e8, 5.0]  # float32: each order has a sum of its own
    model = nn.Linear(1, 1, bias=False)
    found = set()
    for arrival in itertools.permutations(range(4)):
        exchange = _Exchange(model, 4)
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
        config = dataclasses.replace(TINY, steps=1, summary_every=1, towers=towers)
        training.train(config, run_dir=run)
        found.append(read_back(run / "summaries" / "train").Tags())
    assert "activations/conv1" in found[0]["histograms"]
    assert found[1] == found[0]


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deepcnn", "train", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    code = end.value.code
    assert isinstance(code, int)
    return code


def test_the_table_of_what_lies_where_has_a_column_for_each_tower(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["tiny", "--towers", "2", "--steps", "1", "--device", "cpu", "--threads", "1"]
    arguments += ["--run-dir", str(tmp_path / "run"), "--log-device-placement"]
    assert run_cli(monkeypatch, *arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["what", "type", "state", "tower", "0", "tower", "1"] in lines
    variable = ["conv1.weight", "float32", "[16,", "3,", "5,", "5]", "cpu", "cpu", "cpu"]
    assert variable in lines
    assert ["momentum", "float32", "[49370]", "cpu"] in lines
    assert ["moving", "averages", "float32", "[49370]", "cpu"] in lines
    assert ["mean", "of", "the", "gradients", "cpu"] in lines


@pytest.mark.parametrize(
    ("arguments", "towers", "batch_size", "decay_steps"),
    [
        (["tutorial"], 0, 128, 136_718),
        (["tutorial", "--num-gpus", "2"], 2, 256, 68_359),
        (["tutorial", "--num-gpus=4"], 4, 512, 34_179),
        (["tutorial", "--num_gpus", "2"], 2, 256, 68_359),  # the spelling of TensorFlow's program
        (["tutorial", "--num-gpus", "2", "--batch-size", "128"], 2, 128, 136_718),
        (["tutorial", "--towers", "2"], 2, 128, 136_718),
    ],
)
def test_num_gpus_multiplies_the_batch_and_the_schedule_follows(
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    towers: int,
    batch_size: int,
    decay_steps: int,
) -> None:
    asked = train_no_more(monkeypatch)
    assert run_cli(monkeypatch, *arguments) == 0
    (config,) = asked
    assert (config.towers, config.batch_size) == (towers, batch_size)
    schedule = training._schedule(config, 50_000)
    assert [schedule(s) for s in (decay_steps - 1, decay_steps)] == pytest.approx([1, 0.1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "run", "--num-gpus", "2"], "--num-gpus changes the size of a batch, which"),
        (["tiny", "--num-gpus", "0"], "--num-gpus: expected at least 1, found 0"),
        (["tiny", "--devices", "2", "--towers", "2"], "--devices starts processes, --towers"),
        (["tiny", "--devices", "2", "--num-gpus", "2"], "--devices starts processes, --towers"),
        (["tiny", "--devices", "0"], "--devices: expected at least 1, found 0"),
        (["tiny", "--towers", "33"], "towers: expected at most one for each of the 32 examples"),
    ],
)
def test_settings_that_cannot_be_are_answered(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    training.train(dataclasses.replace(TINY, steps=1), run_dir=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert run_cli(monkeypatch, *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(("towers", "shown"), [(0, "0.500"), (1, "0.500"), (2, "0.250")])
def test_the_seconds_of_a_batch_are_those_of_a_towers_batch(
    capsys: pytest.CaptureFixture[str], towers: int, shown: str
) -> None:
    console = cli._Console()
    console(Started("run", "tutorial", 0, 9, 256, 1, 1, "cpu", "fp32", 1, towers, 1))
    console(Stepped(0, {"total_loss": 1.0}, {}, 0.1, 512.0, 0.5))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith(f"step 0, loss = 1.00 (512.0 examples/sec; {shown} sec/batch)")


@pytest.fixture(scope="module")
def quick_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`quick` on one device, and on two towers with common statistics and with their own."""
    path = tmp_path_factory.mktemp("quick")
    training.train(QUICK, run_dir=path / "single")
    for name, together in (("sync", True), ("own", False)):
        config = dataclasses.replace(QUICK, towers=2, sync_batch_norm=together)
        training.train(config, run_dir=path / name)
    return path


def test_batch_normalization_over_two_towers_is_that_of_one_device(quick_runs: Path) -> None:
    expected = tensors(quick_runs / "single")
    assert any("running_var" in name for name in expected)
    # Normalization and Muon take small differences further than the tutorial's network does.
    assert difference(tensors(quick_runs / "sync"), expected) < 2e-3
    assert difference(tensors(quick_runs / "own"), expected) > 2e-2


def test_towers_follow_what_learns_and_what_no_longer_does(quick_runs: Path) -> None:
    saved = checkpoint.paths(quick_runs / "sync" / "checkpoints")
    states = [checkpoint.load(path)[1] for path in saved]
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
        for path in checkpoint.paths(copy / "checkpoints")[start:]:
            path.unlink()
        training.resume(copy)
        assert last(copy) == last(quick_runs / name)


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

    meeting = _Meeting(len(sizes))
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


def test_a_bad_batch_of_one_tower_stops_all_updates() -> None:
    def bad(step: int, part: Part) -> tuple[Tensor, Tensor]:
        images, labels = load(step, part)
        return images * (float("nan") if (step, part.index) == (2, 1) else 1.0), labels

    state = state_of(TINY)
    with closing(towers_of(state, Job(bad, 33, lambda _: 1.0))) as engine:
        steps(engine, state, 2)
        good = {name: tensor.clone() for name, tensor in state.tensors().items()}
        steps(engine, state, 2)
    assert int(state.failed) == 2
    for name, tensor in state.tensors().items():
        assert name == "loss_averages" or torch.equal(tensor, good[name]), name


def test_moving_the_state_keeps_what_optimizers_and_averages_know() -> None:
    state = state_of(TINY)
    state.to(CPU)
    assert state.averages is not None
    parameters = dict(state.model.named_parameters())
    for known in (state.averages._live, *(vars(o)["_parameters"] for o in state.optimizers)):
        assert all(parameters[name] is parameter for name, parameter in known.items())


def test_towers_of_an_image_each(tmp_path: Path) -> None:
    """As many towers as examples: each part is one example."""
    config = dataclasses.replace(PLAIN, steps=2, batch_size=3, towers=3)
    training.train(config, run_dir=tmp_path / "towers")
    training.train(dataclasses.replace(config, towers=0), run_dir=tmp_path / "single")
    assert difference(tensors(tmp_path / "towers"), tensors(tmp_path / "single")) < SUMMATION
