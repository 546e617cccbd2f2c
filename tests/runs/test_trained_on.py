"""What a run stores about its data, and how it tells that they changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import Source, in_memory
from deepcnn.errors import RunError
from deepcnn.runs.beginning import Beginning
from deepcnn.runs.run import INPUTS, Run
from deepcnn.runs.trained_on import TrainedOn
from tests.helpers.tiny import TINY, transform_of

COUNTS = {"train": [2, 1], "validation": [1, 1]}


def source_of(side: int = 32, channels: int = 3, classes: tuple[str, ...] = ("a", "b")) -> Source:
    images = np.zeros((3, side, side, channels), np.uint8)
    return in_memory(Arrays(images, np.array([0, 1, 0]), classes))


def stored() -> TrainedOn:
    return TrainedOn(transform_of(TINY), ("a", "b"), COUNTS, "function")


def test_what_is_stored_is_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for fed_by in ("function", None):
        expected = dataclasses.replace(stored(), fed_by=fed_by)
        run.write(INPUTS, expected.to_dict())
        assert TrainedOn.read(run) == expected
    values = run.read(INPUTS)
    assert values["examples"] == [2, 1]
    assert values["scored_on"] == {"validation": [1, 1]}


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("classes"),
        lambda values: values.pop("inputs"),
        lambda values: values.update(inputs={"crop": 3}),
        lambda values: values.update(classes=3),
        lambda values: values.update(scored_on=7),
        lambda values: values.update(examples=7),
    ],
)
def test_what_was_not_written_by_us_is_an_error_that_names_the_file(
    tmp_path: Path, damage: object
) -> None:
    values = json.loads(json.dumps(stored().to_dict()))
    damage(values)  # type: ignore[operator]
    run = Run(tmp_path)
    run.write(INPUTS, values)
    with pytest.raises(RunError, match=r"inputs\.json: not as deepcnn writes it"):
        TrainedOn.read(run)


def test_data_that_are_as_they_were_are_taken() -> None:
    stored().check("data", "train", source_of(), np.array([2, 1]))
    stored().check("data", "test", source_of(), np.array([9, 9]))  # of which nothing is known


@pytest.mark.parametrize(
    ("source", "counts", "message"),
    [
        (source_of(side=24), [2, 1], r"images \(32, 32, 3\) of 2 classes, found \(24, 24, 3\)"),
        (source_of(channels=1), [2, 1], r"found \(32, 32, 1\) of 2"),
        (source_of(classes=("a", "b", "c")), [2, 1, 0], r"of 2 classes, found .* of 3\."),
        (source_of(classes=("a", "x")), [2, 1], "the train split changed"),
        (source_of(), [1, 2], r"expected \[2, 1\] examples by class, found \[1, 2\]"),
    ],
)
def test_data_that_changed_are_refused(source: Source, counts: list[int], message: str) -> None:
    with pytest.raises(RunError, match=message):
        stored().check("data", "train", source, np.array(counts))


def test_what_a_run_began_with_is_stored_and_checked(tmp_path: Path) -> None:
    began = Beginning("a", "a/b", 7, True, None, "0" * 64, ("conv1",), ("conv1",), {"head": "why"})
    run = Run(tmp_path)
    run.write(INPUTS, dataclasses.replace(stored(), began_with=began).to_dict())
    assert TrainedOn.read(run).began_with == began
    damaged: list[object] = [[], "a", {"path": "a"}, began.to_dict() | {"left": 3}]
    for wrong in damaged:
        run.write(INPUTS, stored().to_dict() | {"began_with": wrong})
        with pytest.raises(RunError, match="not as deepcnn writes it"):
            TrainedOn.read(run)
