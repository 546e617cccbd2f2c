"""Pairs that the doctor finds are compared with a list in the list's own order."""

from __future__ import annotations

from pathlib import Path

from deepcnn.doctor.findings import Place
from tests.benchmarks.conftest import Import


def test_found_pairs_meet_the_list_in_either_order(benchmark: Import, tmp_path: Path) -> None:
    case = benchmark("cases.doctor_duplicates")
    lines = "TestID,TrainID,Distance,Judgment\n"
    (tmp_path / "train.csv").write_text(lines + "3,700,0.1,1\n5,8,0.2,2\n")
    (tmp_path / "test.csv").write_text(lines + "4,9,0.1,1\n20,6,0.2,1\n")
    listed = case.read(tmp_path / "train.csv", "train") | case.read(tmp_path / "test.csv", "test")
    found = [
        (Place("train", 700), Place("test", 3)),
        (Place("test", 4), Place("test", 9)),
        (Place("test", 20), Place("test", 6)),
        (Place("test", 8), Place("test", 1)),
    ]
    told = case.held_against(listed, {case.in_order(a, b) for a, b in found})
    assert told == case.held_against(listed, {case.in_order(b, a) for a, b in found})
    assert (told["found near"], told["listed near"], told["recall"]) == (3, 3, 1.0)
    assert (told["found similar"], told["listed similar"]) == (0, 1)
    assert (told["with a test image"], told["not listed"]) == (4, 1)
