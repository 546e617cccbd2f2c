"""What the program says of events."""

from __future__ import annotations

import json

import pytest

from deepcnn.console import console
from deepcnn.events import (
    Advanced,
    Evaluated,
    Fetching,
    Finished,
    Interrupted,
    Placed,
    SourceFailed,
    Started,
    Stepped,
    Traced,
)


def started(model: str = "tutorial", preset: str = "tutorial", towers: int = 0) -> Started:
    return Started(
        run="run",
        preset=preset,
        model=model,
        step=0,
        steps=9,
        batch_size=256,
        parameters=1,
        examples=1,
        device="cpu",
        precision="fp32",
        threads=1,
        towers=towers,
        processes=1,
    )


def test_each_source_of_a_data_set_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=False) as tell:
        tell(Fetching("x", "home page", 1, 10))
        tell(SourceFailed("x", "home page", "broke off"))
        tell(Fetching("x", "npm", 1, 10))
        tell(Fetching("x", "npm", 2, 10))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["Fetching x from home page", "x: home page: broke off", "Fetching x from npm"]


@pytest.mark.parametrize(("towers", "shown"), [(0, "0.500"), (1, "0.500"), (2, "0.250")])
def test_the_seconds_of_a_batch_are_those_of_a_towers_batch(
    capsys: pytest.CaptureFixture[str], towers: int, shown: str
) -> None:
    with console(as_json=False) as tell:
        tell(started(towers=towers))
        tell(Stepped(0, {"total_loss": 1.0}, {}, 0.1, 512.0, 0.5))
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith(f"step 0, loss = 1.00 (512.0 examples/sec; {shown} sec/batch)")


def test_mnist_speaks_as_the_references_program_did(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=False) as tell:
        tell(started(model="mlp", preset="mnist"))
        tell(Stepped(100, {"total_loss": 2.345}, {}, 0.1, 512.0, 0.0125))
        tell(Evaluated(100, "validation", False, 4321, 5000, 0.5))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Step 100: loss = 2.35 (0.013 sec)",
        "Validation Data Eval:",
        "Num examples: 5000  Num correct: 4321  Precision @ 1: 0.8642",
    ]


@pytest.mark.parametrize("model", ["tutorial", "mine:make", "(Sequential)"])
def test_commands_about_a_run_name_a_network_of_ones_own_again(
    capsys: pytest.CaptureFixture[str], model: str
) -> None:
    with console(as_json=False) as tell:
        tell(started(model))
        tell(Interrupted(5, "run"))
        tell(Finished(9, "run", 1.0))
    lines = capsys.readouterr().out.splitlines()
    own = " --model.name mine:make" if model == "mine:make" else ""
    assert lines[1].endswith(f"train --resume run{own}")
    assert lines[-1].endswith(f"evaluate run{own}")


def test_where_things_lie_is_only_told_where_that_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    placed = Placed(("what", "where"), (("conv1.weight", "cpu"),))
    for wanted in (False, True):
        with console(as_json=False, placement=wanted) as tell:
            tell(placed)
    assert capsys.readouterr().out.splitlines() == ["what          where", "conv1.weight  cpu"]


def test_as_json_each_event_is_a_line_but_what_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with console(as_json=True) as tell:
        tell(Advanced(1, 2, 0.5))
        tell(Traced(()))
        tell(Evaluated(100, "test", True, 1, 2, float("nan")))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["Advanced", "Evaluated"]
    assert lines[1]["loss"] is None
