"""The guard against slowing down: what it computes from times; not the times."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from deepcnn import presets
from deepcnn.data.source import in_memory
from deepcnn.data.synthetic import synthetic
from deepcnn.inputs.transform import Transform
from deepcnn.models.build import build_model
from tests.benchmarks.conftest import Import


@pytest.fixture
def check(benchmark: Import) -> ModuleType:
    return benchmark("cases.check")


def test_a_ratio_beyond_the_margin_is_named(check: ModuleType) -> None:
    committed = {"step": 0.5, "inputs": 0.1, "counted elsewhere": 1.0}
    limit = 0.5 * (1 + check.MARGIN)
    found = {"step": limit - 0.001, "inputs": 0.01, "counted here": 7.0}
    assert check.compare(committed, found) == []
    (line,) = check.compare(committed, found | {"step": limit + 0.001})
    assert line.startswith("step: committed 0.500, found 0.576, +15%")
    assert f"{check.MARGIN:+.0%} is allowed" in line
    assert len(check.compare(committed, found | {"step": float("nan"), "inputs": 1.0})) == 2


def test_the_guard_fails_where_something_is_slower_and_can_be_written_anew(
    check: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    costs = {"ours": 2.0, "yardstick": 4.0}
    pair = (lambda: costs["ours"], lambda: costs["yardstick"])
    monkeypatch.setattr(check, "FILE", tmp_path / "check.json")
    monkeypatch.setattr(check, "parts", lambda: {"a part": (lambda: pair, 3)})
    assert check.main(["--write"]) == 0
    (stored,) = json.loads((tmp_path / "check.json").read_text()).values()
    assert stored["ratios"] == {"a part": 0.5}
    assert {"commit", "date", "environment"} <= set(stored)
    assert check.main([]) == 0
    costs["ours"] = 3.0
    with pytest.raises(SystemExit, match=r"a part: committed 0\.500, found 0\.750, \+50%"):
        check.main([])
    assert "0.750  a part (committed 0.500)" in capsys.readouterr().out


def test_a_part_without_a_committed_ratio_is_not_compared(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "parts", lambda: {"a part": (lambda: (lambda: 1.0,) * 2, 1)})
    assert check.measure({"another": 1.0}) == {"a part": 1.0}
    assert check.measure(None) == {"a part": 1.0}
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["1.000  a part (not compared)", "1.000  a part"]


def test_the_guard_compares_with_ratios_of_the_same_processor(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(check, "FILE", tmp_path / "check.json")
    part = (lambda: (lambda: 1.0, lambda: 4.0), 3)
    monkeypatch.setattr(check, "parts", lambda: {"a part": part})
    (tmp_path / "check.json").write_text('{"another": {"ratios": {"a part": 0.1}}}')
    with pytest.raises(SystemExit, match=r"expected ratios of this .*found those of another"):
        check.main([])
    assert check.main(["--write"]) == 0
    stored = json.loads((tmp_path / "check.json").read_text())
    assert stored.pop("another") == {"ratios": {"a part": 0.1}}
    assert [one["ratios"] for one in stored.values()] == [{"a part": 0.25}]
    assert check.main([]) == 0


def test_a_ratio_is_the_median_of_interleaved_rounds(check: ModuleType) -> None:
    ours, yardsticks = iter([9.0, 1.0, 2.0, 30.0]), iter([9.0, 1.0, 1.0, 1.0])
    assert check.ratio((lambda: next(ours), lambda: next(yardsticks)), 3) == 2.0


def test_the_yardsticks_compute_the_same(check: ModuleType) -> None:
    ours, plain = build_model("tutorial"), check.PlainTutorial()
    plain.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 24, 24)
    torch.testing.assert_close(plain(images), ours(images), atol=1e-4, rtol=1e-4)
    source = in_memory(synthetic("train"))
    transform = Transform.of(source, **dataclasses.asdict(presets.tutorial().inputs))
    index, epoch = torch.arange(16), torch.zeros(16, dtype=torch.int64)
    draws = transform.draw(0, index=index, epoch=epoch, position=index)
    some = torch.from_numpy(source.first_images(16))
    plainly = check.distort_plainly(transform, some, draws)
    torch.testing.assert_close(plainly, transform.train(some, draws), atol=1e-4, rtol=1e-4)


def test_every_part_of_the_guard_is_committed_and_can_be_measured(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = json.loads(check.FILE.read_text()).values()

    def without_unit(names: object) -> list[str]:
        assert isinstance(names, dict)
        return [name.partition(",")[0] for name in names]

    assert committed
    for of_a_processor in committed:
        assert without_unit(of_a_processor["ratios"]) == without_unit(check.parts())
    monkeypatch.setattr(check, "MATRIX", 16)
    for make in (check.tutorial_step, check.distorted_inputs, check.quick_step, check.scoring):
        assert check.ratio(make(), 1) > 0, make.__name__
    assert check.ratio(check.processes(("-m", "deepcnn", "--help"), ("-c", "")), 1) > 0


def test_instructions_are_counted_only_where_perf_can(
    check: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    perf = tmp_path / "perf"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for said, expected in (
        ("123456,,instructions,1,100.00,,", 123456),
        ("<not supported>,,", None),
    ):
        perf.write_text(f"#!/bin/sh\necho 'a warning of the process' >&2\necho '{said}' >&2\n")
        perf.chmod(0o755)
        assert check.instructions(["true"]) == expected
