"""What docs/data.md says and shows of distortions."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepcnn.cli.train import parse_options
from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.settings import TransformConfig

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "data.md").read_text().partition("## Distortions")[2].partition("\n## ")[0]


def test_the_picture_is_what_its_program_makes(cifar10_test: Arrays) -> None:
    """But for rounding on other processors, and for letters in other versions of Pillow."""
    found = importlib.util.spec_from_file_location("make", DOCS / "make_distortions.py")
    assert found is not None
    assert found.loader is not None
    program = importlib.util.module_from_spec(found)
    found.loader.exec_module(program)
    made = np.asarray(program.sheet(in_memory(cifar10_test))).astype(np.int64)
    stored = np.asarray(Image.open(program.FILE).convert("RGB"))
    assert made.shape == stored.shape
    images = np.abs(made - stored)[program.HEADER :, program.LABEL :]
    assert (images > 2).mean() < 1e-3


def test_the_table_has_every_setting_of_a_training_image(page: str) -> None:
    listed = re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)
    others = {"standardize", "scales", "views"}  # what is no distortion
    assert sorted(listed) == sorted({field.name for field in fields(TransformConfig)} - others)


def test_the_command_asks_for_what_it_says(page: str) -> None:
    (command,) = re.findall(r"^deepcnn train (.+)$", page, flags=re.MULTILINE)
    inputs = parse_options(command.split()).config.inputs
    assert (inputs.rotation, inputs.saturation, inputs.cutmix) == (10.0, (0.7, 1.3), 1.0)
