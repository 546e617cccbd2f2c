"""The steps of a training: the same bits wherever it was resumed, and what happens in between."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.engines import engine
from deepcnn.engines.single import Single
from deepcnn.errors import ConfigError
from deepcnn.events import Advanced, Event, Interrupted, Stepped
from deepcnn.learning import assembly
from deepcnn.runs import checkpoint
from deepcnn.training.start import resume, train
from tests.helpers.tiny import logged, saved, tensors, tiny, with_optimizer


def without_checkpoints(run: Path, copy: Path) -> Path:
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "log.jsonl"))
    (copy / "checkpoints").mkdir()
    return copy


@pytest.mark.parametrize(
    "tried",
    [
        pytest.param(slice(0, 200, 20), id="some"),
        pytest.param(slice(0, 200), id="every", marks=pytest.mark.endurance),
    ],
)
def test_from_every_step_of_tiny_one_more_gives_the_same_bits(
    every_step: Path, tmp_path: Path, tried: slice
) -> None:
    """By induction, then, a run resumed anywhere equals the run that was never interrupted."""
    all_saved = saved(every_step)
    assert len(all_saved) == 200
    copy = without_checkpoints(every_step, tmp_path / "copy")
    pairs = list(zip([None, *all_saved[:-1]], all_saved, strict=True))
    for before, after in pairs[tried]:
        shutil.rmtree(copy / "checkpoints")
        (copy / "checkpoints").mkdir()
        if before:
            shutil.copy(before, copy / "checkpoints")
        step = checkpoint.step_of(after)
        resume(copy, changes=lambda c, n=step: dataclasses.replace(c, steps=n))  # type: ignore[misc]
        assert (copy / "checkpoints" / after.name).read_bytes() == after.read_bytes()


@pytest.mark.parametrize("preset", ["quick", "tutorial"])
def test_muon_and_normalization_resume_to_the_same_bits(tmp_path: Path, preset: str) -> None:
    """`quick` on small data: its stem's bias is fixed after step 6 of 10, between two resumes."""
    config = dataclasses.replace(
        presets.PRESETS[preset](),
        data="synthetic",
        steps=10,
        batch_size=32,
        summary_every=0,
        save_every=1,
        keep=10,
    )
    train(config, run_dir=tmp_path / "whole")
    all_saved = saved(tmp_path / "whole")
    for start in (2, 6, 7):
        copy = without_checkpoints(tmp_path / "whole", tmp_path / f"from{start}")
        shutil.copy(all_saved[start - 1], copy / "checkpoints")
        resume(copy)
        assert (copy / "checkpoints" / all_saved[-1].name).read_bytes() == (
            all_saved[-1].read_bytes()
        )


def test_summaries_and_evaluations_change_no_bit(every_step: Path, tmp_path: Path) -> None:
    config = tiny(steps=30, summary_every=1, evaluate_every=7, log_every=3)
    train(config, run_dir=tmp_path / "run")
    name = "step-000000030.safetensors"
    assert (tmp_path / "run/checkpoints" / name).read_bytes() == (
        every_step / "checkpoints" / name
    ).read_bytes()


def test_deterministic_training_has_the_same_bits_and_ends_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where all is deterministic anyway; a GPU's products need cuBLAS to be told so."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is restored
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for name, deterministic in (("asked", True), ("plain", False)):
        train(tiny(steps=5, deterministic=deterministic), run_dir=tmp_path / name)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    a, b = (saved(tmp_path / name)[-1] for name in ("asked", "plain"))
    assert a.read_bytes() == b.read_bytes()


def test_another_seed_is_another_run(tmp_path: Path, every_step: Path) -> None:
    train(tiny(steps=3, seed=1), run_dir=tmp_path / "run")
    (path,) = saved(tmp_path / "run")
    assert path.read_bytes() != (every_step / "checkpoints" / path.name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_rest_gives_the_same_bits(
    tmp_path: Path, every_step: Path, number: signal.Signals
) -> None:
    heard: list[Event] = []

    def interrupt(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Stepped) and event.step == 20:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    result = train(tiny(save_every=1000), run_dir=tmp_path / "run", emit=interrupt)
    assert signal.getsignal(number) is handler
    assert result.evaluated is None
    assert result.step in (21, 22)
    assert isinstance(heard[-1], Interrupted)
    resumed = resume(tmp_path / "run")
    assert resumed.step == 200
    name = "step-000000200.safetensors"
    assert (tmp_path / "run/checkpoints" / name).read_bytes() == (
        every_step / "checkpoints" / name
    ).read_bytes()


@pytest.mark.parametrize("stopped_at", [10, 20])
def test_an_evaluation_that_a_stop_left_out_is_made_up_for(tmp_path: Path, stopped_at: int) -> None:
    """The signal comes with the step after which both a checkpoint and an evaluation are due."""

    def interrupt(event: Event) -> None:
        if isinstance(event, Advanced) and event.step == stopped_at:
            os.kill(os.getpid(), signal.SIGTERM)

    config = tiny(steps=30, evaluate_every=10)
    stopped = train(config, run_dir=tmp_path / "run", emit=interrupt)
    assert stopped.step == stopped_at
    resume(tmp_path / "run")
    train(config, run_dir=tmp_path / "whole")
    scores = [
        [{**entry, "time": None} for entry in logged(tmp_path / name, "Evaluated")]
        for name in ("run", "whole")
    ]
    assert [entry["step"] for entry in scores[0]] == [10, 20, 30]
    assert scores[0] == scores[1]
    resume(tmp_path / "run", changes=lambda c: dataclasses.replace(c, steps=40))
    steps = [entry["step"] for entry in logged(tmp_path / "run", "Evaluated")]
    assert steps == [10, 20, 30, 40], "none is made twice"


def growing(*scales: tuple[float, float]) -> Config:
    quick = presets.quick()
    return dataclasses.replace(
        quick,
        data="synthetic",
        model=dataclasses.replace(quick.model, widths=(16, 16, 16)),
        inputs=dataclasses.replace(quick.inputs, scales=scales),
        steps=4,
        batch_size=16,
        log_every=1,
        summary_every=1,
        save_every=1,
    )


def test_images_grow_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    step = Single.step

    def watched(engine: Single) -> torch.Tensor:
        losses = step(engine)
        sides.append(tuple(engine.images.shape[2:]))
        return losses

    monkeypatch.setattr(Single, "step", watched)
    path = tmp_path / "run"
    config = growing((0.0, 0.1), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    train(dataclasses.replace(config, summary_every=0), run_dir=path)
    assert sides == [(9, 9), (16, 16), (24, 24), (32, 32)]  # speednet needs nine
    with pytest.raises(ConfigError, match=r"^steps: cannot change"):
        resume(path, changes=lambda c: dataclasses.replace(c, steps=8))


def test_layers_learn_for_their_share_of_the_training(tmp_path: Path) -> None:
    config = dataclasses.replace(growing((0.0, 1.0)), steps=10, save_every=1, keep=10)
    train(
        with_optimizer(config, freeze=(("stem", 0.15), ("group1", 0.8))), run_dir=tmp_path / "run"
    )
    states = [checkpoint.load(path)[1] for path in saved(tmp_path / "run")]
    changes = {
        name: [not torch.equal(a[f"model.{name}"], b[f"model.{name}"]) for a, b in pairwise(states)]
        for name in ("stem.bias", "group1_2.conv.weight", "group2_1.conv.weight")
    }
    # From step 1 on: that of step 2, those of steps 2 to 8, and all.
    assert changes["stem.bias"] == [True] + [False] * 8
    assert changes["group1_2.conv.weight"] == [True] * 7 + [False] * 2
    assert changes["group2_1.conv.weight"] == [True] * 9


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_with_float32_weights(tmp_path: Path, precision: str) -> None:
    config = tiny(steps=60, precision=precision)
    result = train(config, run_dir=tmp_path / "run")
    assert result.evaluated is not None
    assert {t.dtype for t in tensors(tmp_path / "run").values()} == {torch.float32, torch.int64}
    full = train(tiny(steps=60), run_dir=tmp_path / "full")
    assert full.evaluated is not None
    assert result.evaluated.loss == pytest.approx(full.evaluated.loss, rel=0.05)


def test_an_fp16_overflow_skips_the_update_and_halves_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "INITIAL_LOSS_SCALE", 2.0**60)
    train(tiny(steps=1, precision="fp16"), run_dir=tmp_path / "run")
    found = tensors(tmp_path / "run")
    assert float(found["loss_scale"]) == 2.0**59
    assert int(found["good_steps"]) == 0
    assert torch.equal(found["model.conv1.weight"], found["average.conv1.weight"])


def test_the_fp16_scale_grows_after_good_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "INITIAL_LOSS_SCALE", 8.0)
    monkeypatch.setattr(engine, "STEPS_TO_GROW", 3)
    train(tiny(steps=7, precision="fp16"), run_dir=tmp_path / "run")
    found = tensors(tmp_path / "run")
    assert float(found["loss_scale"]) == 32.0
    assert int(found["good_steps"]) == 1
