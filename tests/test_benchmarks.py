"""The runner of the benchmarks, on a case that takes no time; what is measured is not tested."""

from __future__ import annotations

import importlib
import json
import pickle
import shlex
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
# Its contenders write down that it is their turn, and by which process. The third of the rounds is
# unlike the others, so that a mean is no median.
CONTENDERS = """
import os

def turn(name, folder):
    assert (folder / "prepared").exists()
    with (folder.parent / "turns").open("a") as file:
        file.write(f"{name} {os.getpid()}\\n")
    return (folder.parent / "turns").read_text().count(f"{name} ")

def old(folder):
    return {"speed": [10, 12, 100][turn("old", folder) - 1], "other": 1}

def new(folder):
    return {"speed": [24, 20, 30][turn("new", folder) - 1], "versions": {"new": "1.0"}}

def prepare(folder):
    (folder / "prepared").touch()
"""

pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="needs the whole repository")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`run.py` with a case `fake`, whose scratch folder is in `tmp_path`."""
    (tmp_path / "contenders.py").write_text(CONTENDERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "contenders", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    contenders = importlib.import_module("contenders")
    run = importlib.import_module("run")
    fake = run.Case(
        what="turns",
        unit="turns/s",
        contenders={"old": contenders.old, "new": contenders.new},
        denominator="old",
        peers=("peer",),
        prepare=contenders.prepare,
    )
    monkeypatch.setitem(run.CASES, "fake", fake)
    return run


def go(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *arguments: str
) -> dict[str, object]:
    monkeypatch.setattr(sys, "argv", ["run.py", "fake", "--out", str(out), *arguments])
    runner.main()
    result: dict[str, object] = json.loads(out.read_text())
    return result


def test_contenders_take_turns_each_in_a_fresh_process_and_are_compared(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peer = shlex.join([sys.executable, "-c", 'print("begun"); print(\'{"speed": 3}\')'])
    arguments = ["--rounds", "3", "--peer", f"peer={peer}"]
    result = go(runner, monkeypatch, tmp_path / "out.json", *arguments)
    turns = [line.split() for line in (tmp_path / "turns").read_text().splitlines()]
    assert [name for name, _ in turns] == ["old", "new"] * 3
    assert len({process for _, process in turns}) == 6
    assert result["rates"] == {
        "peer": {"speed": [3, 3, 3]},
        "old": {"speed": [10, 12, 100], "other": [1, 1, 1]},
        "new": {"speed": [24, 20, 30]},
    }
    assert result["medians"] == {
        "peer": {"speed": 3},
        "old": {"speed": 12, "other": 1},
        "new": {"speed": 24},
    }
    assert result["ratios"] == {
        "peer": {"speed": 0.25},
        "old": {"speed": 1, "other": 1},
        "new": {"speed": 2},
    }
    assert result["notes"] == {"peer": {}, "old": {}, "new": {"versions": {"new": "1.0"}}}


def test_a_result_tells_its_circumstances(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0" * 40
    said = {"rev-parse": commit, "status": " M src/deepcnn/training.py"}
    monkeypatch.setattr(runner.report, "git", lambda *words: said[words[0]])
    out = tmp_path / "out.json"
    result = go(runner, monkeypatch, out, "--rounds", "1")
    assert set(result) == {
        *("what", "unit", "higher_is_better", "denominator", "case", "command", "commit", "dirty"),
        *("date", "environment", "rounds", "medians", "ratios", "rates", "notes"),
    }
    assert result["command"] == f"python run.py fake --out {out} --rounds 1"
    assert (result["case"], result["commit"], result["dirty"]) == ("fake", commit, True)
    environment = result["environment"]
    assert isinstance(environment, dict)
    assert {"deepcnn", "torch", "cores", "processor"} <= set(environment)
    said["status"] = ""
    assert runner.report.circumstances()["dirty"] is False


def test_a_result_that_is_there_is_kept(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    out.write_text("{}")
    with pytest.raises(SystemExit, match="exists"):
        go(runner, monkeypatch, out)
    assert out.read_text() == "{}"
    assert not (tmp_path / "turns").exists()


def test_a_peer_that_the_case_does_not_know_is_refused(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        go(runner, monkeypatch, tmp_path / "out.json", "--peer", "pear=true")
    assert not (tmp_path / "turns").exists()


def test_a_ratio_above_one_is_better_also_where_less_is_better(runner: ModuleType) -> None:
    medians = {"old": {"seconds": 6.0}, "new": {"seconds": 2.0, "other": 1.0}}
    case = runner.Case("time", "s", {}, denominator="old", higher_is_better=False)
    assert runner.compare(medians, case) == {"old": {"seconds": 1.0}, "new": {"seconds": 3.0}}
    absent = runner.Case("time", "s", {}, denominator="peer")
    assert runner.compare(medians, absent) == {"old": {}, "new": {}}


def test_every_case_is_well_formed_and_listed(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, case in runner.CASES.items():
        assert case.what, name
        assert case.unit, name
        assert case.contenders, name
        assert case.denominator in {*case.contenders, *case.peers}, name
        assert not set(case.contenders) & set(case.peers), name
        for contender in case.contenders.values():
            pickle.dumps(contender)  # a fresh process gets it so
    monkeypatch.setattr(sys, "argv", ["run.py"])
    runner.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*runner.CASES, "same_bits"]


def test_what_differs_first_between_two_sources_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    same_bits = importlib.import_module("cases.same_bits")

    def difference(**tree: object) -> str | None:
        base = {"loss": "0.1", "weight": torch.tensor([0.0, 2.0]), "step": torch.tensor(3)}
        found: str | None = same_bits.first_difference(base, {**base, **tree})
        return found

    assert difference() is None
    assert difference(loss="0.2") == "loss: base 0.1, tree 0.2"
    next_above = torch.tensor([0.0, 2.0]).nextafter(torch.tensor(9.0))
    assert difference(weight=next_above) == "weight: 2 of 2 values differ, by up to 2.38e-07"
    negative_zero = torch.tensor([-0.0, 2.0])
    assert difference(weight=negative_zero) == "weight: 1 of 2 values differ, by up to 0"
    assert difference(step=torch.tensor(4)) == "step: 1 of 1 values differ, by up to 1"
    double = torch.tensor([0.0, 2.0], dtype=torch.float64)
    assert difference(weight=double) == "weight: base torch.float32 [2], tree torch.float64 [2]"
    assert difference(more="") == "more: only in the tree"
    assert same_bits.first_difference({"a": ""}, {}) == "a: only in the base"
    assert same_bits.first_difference({}, {}) == "expected something to compare, found nothing"


def test_all_bits_of_logged_numbers_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    same_bits = importlib.import_module("cases.same_bits")
    line = '{"event": "Stepped", "step": 7, "seconds": 1.0, "losses": {"total_loss": LOSS}}\n'
    losses = ("0.30000000000000004", "0.3", "-0.0", "null")
    for number in losses:
        log = '{"event": "Saved", "step": 7}\n' + line.replace("LOSS", number)
        assert same_bits.events(log, "Stepped", ("losses",)) == {
            "Stepped 1, step 7": f'{{"losses": {{"total_loss": {number}}}}}'
        }


PUBLISHED = """
import pathlib, time
assert pathlib.Path("cifar10/train.pt").exists()
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run in range(1000):
    print("|          |      0  |     0.9412  |   0.9240  |               |        1.5000  |")
    accuracy, seconds = 0.94 + run / 10000, 2 + run / 100
    print(f"|     |   eval  |     0.9512  |   0.9340  |  {accuracy:.4f}  |  {seconds:.4f}  |")
"""


def test_a_gpus_speed_is_measured_beside_published_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On the CPU, with a program that prints what the published ones print."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    speed = importlib.import_module("gpu_speed")
    (tmp_path / "peer.py").write_text(PUBLISHED)
    data = tmp_path / "data" / "cifar10"
    data.mkdir(parents=True)
    (data / "train.pt").touch()
    (data / "test.pt").touch()
    command = [
        *("gpu_speed.py", "tiny", "--device", "cpu", "--runs", "2", "--out", str(tmp_path / "o")),
        *(
            "--set",
            "steps=200",
            "--set",
            "optimizer.learning_rate=0.03",
            "--set",
            "steps_per_plan=40",
            "--peer-data",
            str(tmp_path / "data"),
        ),
        *("--peer", f"published={tmp_path / 'peer.py'}"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    speed.main()
    result = json.loads((tmp_path / "o").read_text())
    ours, published = result["results"]["deepcnn"], result["results"]["published"]
    assert [run["seed"] for run in ours] == [0, 1]
    assert all(run["accuracy"] > 0.5 for run in ours)
    assert all(run["seconds"] > run["training"] > run["scoring"] > 0 for run in ours)
    # The first run of a published program, in which it compiles, is left out.
    assert published == [
        {"accuracy": 0.9401, "seconds": 2.01},
        {"accuracy": 0.9402, "seconds": 2.02},
    ]
    assert result["summaries"]["published"]["mean accuracy"] == pytest.approx(0.94015)
    mean = result["summaries"]["deepcnn"]["mean seconds"]
    assert result["summaries"]["published"]["ratio"] == pytest.approx(2.015 / mean)
    assert result["profile"]["seconds a step"] > 0
    assert result["profile"]["most"]


def test_a_published_program_that_hangs_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    speed = importlib.import_module("gpu_speed")
    (tmp_path / "peer.py").write_text(PUBLISHED + "\ntime.sleep(1000)\n")
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "train.pt").touch()
    began = time.perf_counter()
    found = speed.run_peer(tmp_path / "peer.py", tmp_path, 1000, began + 3)
    assert time.perf_counter() - began < 60
    assert found[0] == {"accuracy": 0.9401, "seconds": 2.01}
