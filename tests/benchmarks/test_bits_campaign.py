"""The campaign that compares trainings beside a load with their twins, in short."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.benchmarks.conftest import Import


@pytest.fixture
def bits(benchmark: Import) -> ModuleType:
    return benchmark("faults.bits")


@pytest.mark.skipif(sys.platform != "linux", reason="the load forks")
def test_a_training_beside_a_load_has_the_bits_of_its_twin(
    bits: ModuleType,
    benchmark: Import,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = benchmark("faults.bits_worker").train
    threads = torch.get_num_threads()

    def here(kind: str, steps: int, times: int) -> list[dict[str, str]]:
        """Train in this process: a new one takes seconds to begin."""
        return [train(kind, steps) for _ in range(times)]

    monkeypatch.setattr(bits, "trained", here)
    monkeypatch.setattr(bits, "AT_ONCE", 1)
    log = tmp_path / "log.jsonl"
    short = ["--cases", "4", "--steps", "3", "--load", "2", "--log", str(log)]
    try:
        assert bits.main([*short, "--only", "tiny bf16 1", "speednet fp16 2"]) == 0
    finally:
        torch.set_num_threads(threads)
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert [case["load"] for case in found] == [2] * 4
    assert min(case["compared"] for case in found) > 3 * 10


def test_what_differs_first_is_told_in_the_order_of_time(
    bits: ModuleType, benchmark: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = benchmark("faults.bits_worker")
    twin = worker.train("tiny fp32 1", 3)
    digest = worker.digest
    made = []

    def flipped(tensor: torch.Tensor) -> str:
        """Flip the last bit of one value of the gradient that is computed second, in step 1."""
        made.append(0)
        if len(made) == place:
            tensor = tensor.clone()
            tensor.view(torch.int32).view(-1)[-1] ^= 1
        return str(digest(tensor))

    names = [*twin]
    name = next(n for n in names if n.startswith("step 1, gradient of"))
    place = names.index(name) + 1
    monkeypatch.setattr(worker, "digest", flipped)
    told = bits.difference(twin, worker.train("tiny fp32 1", 3))
    assert told.startswith(f"{name}: ")
    assert told.endswith(f"; 1 of {len(twin)} differ")
    assert bits.difference(twin, dict(twin)) == ""
    shorter = {name: value for name, value in twin.items() if name != names[-1]}
    assert bits.difference(twin, shorter).startswith(f"{names[-1]}: ")


def test_trainings_are_planned_in_rows_and_alone_and_as_many_as_were_asked_for(
    bits: ModuleType,
) -> None:
    for cases in (1, 11, 300):
        planned = bits.plan(cases, bits.KINDS)
        assert sum(times for _, times in planned) == cases
    assert {kind for kind, _ in planned} == {*bits.KINDS}
    assert {times for _, times in planned} >= {1, bits.ROW}
    assert bits.plan(11, ["a"]) == [("a", 8), ("a", 1), ("a", 1), ("a", 1)]
