from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deepcnn.cli.arguments import own_network, value_of, with_dashes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--num_gpus", "--num-gpus"),
        ("--data_dir=my_data", "--data-dir=my_data"),
        ("my_data", "my_data"),
        ("-x_y", "-x_y"),
    ],
)
def test_a_flag_may_be_spelled_with_underscores_and_values_stay(given: str, expected: str) -> None:
    assert with_dashes(given) == expected


def test_the_last_value_of_a_flag_counts_in_either_form() -> None:
    assert value_of("--towers", ["--towers", "2", "--towers=3"]) == "3"
    assert value_of("--towers", ["--towers=3", "--towers", "2"]) == "2"
    assert value_of("--towers", ["--seed", "2", "--towers"]) is None
    assert value_of("--towers", ["--towers-of", "2"]) is None


def test_a_network_of_ones_own_is_looked_for_in_the_current_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert own_network("tutorial") is None
    assert own_network(None) is None
    assert str(tmp_path) not in sys.path
    assert own_network("module:make") == "module:make"
    assert sys.path.count(str(tmp_path)) == 1
    own_network("module:make")
    assert sys.path.count(str(tmp_path)) == 1
