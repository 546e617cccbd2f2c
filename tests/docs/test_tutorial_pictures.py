"""The tutorial's pictures show what happens, and their program runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from docs.pictures_of import curves, drawing, inputs, network, visualizer
from PIL import Image

from deepcnn.data.arrays import Arrays
from deepcnn.data.source import in_memory
from deepcnn.inference.trained import Trained
from deepcnn.inputs.transform import Transform
from deepcnn.kernels.crop import crop
from deepcnn.runs.log import read_log
from deepcnn.runs.run import Run
from tests.docs.pages import ROOT, pages
from tests.helpers.networks import as_trained

MOST = 1_500_000  # bytes of all pictures of the tutorial together


@pytest.fixture(scope="module")
def trained(cifar10_test: Arrays) -> Trained:
    return as_trained("tutorial", cifar10_test.select(slice(64)))


def test_the_shown_steps_lead_to_the_networks_input(cifar10_train: Arrays) -> None:
    few = cifar10_train.select(slice(8))
    transform = Transform.of(
        in_memory(few), crop=0.75, pad=0, flip="random", contrast=(0.2, 1.8), standardize="image"
    )
    images, drawn = torch.from_numpy(few.images), inputs.draws_for(8, transform, seed=2)
    assert drawn.contrast is not None
    windows = crop(images, drawn.row, drawn.column, drawn.flip, (24, 24)).numpy()
    contrasted = inputs.with_contrast(windows, drawn.contrast.numpy())
    mean = contrasted.mean((1, 2, 3), keepdims=True)
    expected = (contrasted - mean) / contrasted.std((1, 2, 3), keepdims=True)
    found = transform.train(images, drawn).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_activations_are_those_of_the_literatures_order(
    trained: Trained, cifar10_test: Arrays
) -> None:
    watched = network.watch(trained, cifar10_test.images[0])
    rectified = torch.from_numpy(watched.of["conv1"]).relu()
    pooled = torch.nn.functional.max_pool2d(rectified, 3, 2, ceil_mode=True)
    np.testing.assert_allclose(watched.of["pool1"], pooled.numpy(), atol=1e-6)
    logits = watched.of["softmax_linear"]
    with torch.no_grad():
        image = torch.from_numpy(watched.image).permute(2, 0, 1)[None]
        expected = trained.model(image)[0].numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_signs_and_sizes_are_told_apart_by_colour() -> None:
    white, blue, orange, half = drawing.shaded(np.array([[0.0, 2.0, -2.0, 1.0]]), 2.0)[0]
    assert white.tolist() == [255, 255, 255]
    assert (blue.tolist(), orange.tolist()) == ([*drawing.BLUE], [*drawing.ORANGE])
    assert (half > blue).all()
    assert (half < white).all()


def test_what_lies_beside_the_first_part_of_a_graph_comes_below_it() -> None:
    wide = Image.new("RGB", (300, 50), "white")
    wide.paste((0, 0, 0), (10, 10, 30, 40))
    wide.paste((0, 0, 255), (200, 20, 260, 30))
    found = np.asarray(visualizer.stacked(wide))
    assert found.shape[1] == 60 + 2 * drawing.EDGE
    black, blue = ((found == colour).all(2) for colour in ([0, 0, 0], [0, 0, 255]))
    assert (black.sum(), blue.sum()) == (20 * 30, 60 * 10)
    assert black.nonzero()[0].max() < blue.nonzero()[0].min()


def test_the_program_draws_every_picture_that_is_not_tensorboards(
    trained: Trained, tiny_run: Path, cifar10_train: Arrays, cifar10_test: Arrays, tmp_path: Path
) -> None:
    inputs.make(cifar10_train, trained.trained_on.transform, tmp_path)
    network.make(trained, cifar10_test, tmp_path)
    log = read_log(Run.open(tiny_run).log)
    scored = {"event": "Evaluated", "split": "test", "total": 10}
    scores = [
        scored | {"step": step, "averaged": kind, "correct": step + kind}
        for step in (1, 2)
        for kind in (False, True)
    ]
    curves.make(log, scores, tmp_path)
    committed = {path.name for path in (ROOT / "docs/pictures/tutorial").iterdir()}
    drawn = {name for name in committed if not name.startswith(("tensorboard", "devices"))}
    assert {path.name for path in tmp_path.iterdir()} == drawn
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert 300 < picture.width < 800, path.name


def test_every_picture_of_the_tutorial_is_shown_and_all_are_small() -> None:
    shown = {
        (page.parent / path).resolve()
        for page in pages()
        for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text())
    }
    files = sorted((ROOT / "docs" / "pictures" / "tutorial").iterdir())
    assert set(files) <= shown
    assert sum(path.stat().st_size for path in files) < MOST
