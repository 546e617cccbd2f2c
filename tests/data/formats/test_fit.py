"""Pictures of other sides: cropped, padded or squeezed, the same everywhere; and what is said."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import deepcnn
from deepcnn import presets
from deepcnn.cli.arguments import squares
from deepcnn.config import from_dict, to_dict
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.errors import ConfigError
from deepcnn.events import Event, Noted
from deepcnn.exports import export
from deepcnn.settings import DataSpec, Fit
from tests.helpers.pictures import COLOUR, GRAY, noise, saved, write

WIDE = Image.fromarray(noise(12, 20))
LANCZOS = Image.Resampling.LANCZOS


def by_pillow(picture: Image.Image, fit: Fit, side: int) -> np.ndarray:
    """Crop and pad by the definition: what is scaled, and what is cut away or added."""
    width, height = picture.size
    if fit == "squeeze":
        return np.asarray(picture.resize((side, side), LANCZOS))
    if fit == "pad":
        small = picture.resize((side, round(height * side / width)), LANCZOS)
        whole = np.zeros((side, side, 3), np.uint8)
        top = round((side - small.height) * 0.5)
        whole[top : top + small.height] = np.asarray(small)
        return whole
    edge = (width - height) / 2
    box = (edge, 0, width - edge, height)
    return np.asarray(picture.resize((side, side), LANCZOS, box))


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
def test_each_fit_is_what_pillow_gives(tmp_path: Path, fit: Fit) -> None:
    write(tmp_path, {"a/1.png": saved(WIDE)})
    found = load_dataset(tmp_path, "train", image_size=10, fit=fit)
    assert np.array_equal(found.images[0], by_pillow(WIDE, fit, 10))


def test_older_configurations_crop() -> None:
    values = to_dict(presets.tiny())
    assert values.pop("fit") == "crop"
    assert from_dict(values).fit == "crop"


def test_rules_that_change_pictures_are_said_once(tmp_path: Path) -> None:
    clear = COLOUR.convert("RGBA")
    files = {"a/1.png": saved(COLOUR), "a/2.png": saved(GRAY), "b/3.png": saved(clear)}
    files |= {"b/4.png": saved(WIDE), "b/5.png": saved(COLOUR)}
    for split in ("train", "test"):
        write(tmp_path / split, files)
    heard: list[Event] = []
    data = open_dataset(tmp_path, emit=heard.append)
    for each in data.splits:
        data.split(each)
    assert [event.text for event in heard if isinstance(event, Noted)] == [
        f"{tmp_path}: 1 of 5 pictures have other proportions than 6×5: scaled and cut around their "
        "centre (--fit crop; pad and squeeze keep all of a picture)",
        f"{tmp_path}: 1 of 5 pictures are gray: read as colours",
        f"{tmp_path}: 1 of 5 pictures may be transparent: laid over black",
    ]


def test_pictures_that_stay_as_they_are_need_no_word(tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": saved(GRAY), "b/2.png": saved(GRAY)})
    heard: list[Event] = []
    open_dataset(tmp_path, emit=heard.append).split("train")
    assert not [event for event in heard if isinstance(event, Noted)]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--image-size 64", "--image-size 64 64"),
        ("--image_size 64 --skip-bad", "--image-size 64 64 --skip-bad"),
        ("--image-size 48 64 x", "--image-size 48 64 x"),
        ("--image-size=64", "--image-size 64 64"),
        ("--image-size=48 64", "--image-size 48 64"),
        ("--image-size None", "--image-size None"),
        ("--seed 64", "--seed 64"),
    ],
)
def test_one_number_means_a_square(given: str, meant: str) -> None:
    assert squares(given.split()) == meant.split()
    assert DataSpec(data="x", image_size=64).image_size == (64, 64)  # type: ignore[arg-type]


def test_a_run_keeps_its_fit_for_all_that_comes_after(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    files = {}
    for i in range(8):
        picture = Image.fromarray(random.integers(0, 256, (16, 24, 3), np.uint8))
        files[f"{'ab'[i % 2]}/{i}.png"] = saved(picture)
    data = write(tmp_path / "data", files)
    config = dataclasses.replace(
        presets.tiny(),
        data=str(data),
        image_size=(16, 16),
        fit="pad",
        validation_size=2,
        steps=2,
        batch_size=2,
        summary_every=0,
        device="cpu",
        precision="fp32",
    )
    run = tmp_path / "run"
    deepcnn.train(config, run_dir=run)
    seen = by_pillow(Image.open(io.BytesIO(files["a/0.png"])), "pad", 16)
    for opened in (
        deepcnn.load(run),
        deepcnn.load(export(run, out=tmp_path / "x.onnx", threads=1).path),
    ):
        assert opened.form.fit == "pad"
        by_path, by_pixels = opened.predict([data / "a/0.png", seen])
        assert np.array_equal(by_path.probabilities, by_pixels.probabilities)
        cropped = by_pillow(Image.open(io.BytesIO(files["a/0.png"])), "crop", 16)
        (other,) = opened.predict([cropped])
        assert not np.array_equal(by_path.probabilities, other.probabilities)
    with pytest.raises(ConfigError, match="it was trained with --fit pad, and a page only crops"):
        export(run, "html", out=tmp_path / "x.html")
