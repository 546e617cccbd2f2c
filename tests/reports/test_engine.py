"""The scripts of a page, one by one, in Chromium: each held against what Python does."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from deepcnn.data.formats.decoding import Format, decode, fit
from deepcnn.devices import Place
from deepcnn.inference.calibration import Calibration, calibrate
from deepcnn.inference.kinds import statistics_of
from deepcnn.reports.box import box_program, tall_first
from deepcnn.reports.packing import follow, packed, rounded
from deepcnn.reports.page import SCRIPTS, asset, script
from deepcnn.reports.program import trace
from deepcnn.reports.shrink import shrunk
from tests.helpers.browser import Browser, Page
from tests.reports.networks import NETWORKS, as_trained
from tests.reports.pictures import tiles
from tests.reports.subjects import arrays, trained

FIVE = ("a", "b", "c", "d", "e")
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """An empty page with the scripts that need none of its content."""
    with browser.page("about:blank") as found:
        for name in ("jpeg.js", "engine.js"):
            found.run(
                script(name).replace("let engine=", "var engine=").replace("let jpeg=", "var jpeg=")
            )
        found.run("""
            var bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
            var text = (data) => {
              let found = "";
              for (const value of data) found += String.fromCharCode(value);
              return btoa(found);
            };""")
        yield found


def as_image(image: Pixels) -> str:
    height, width, channels = image.shape
    content = base64.b64encode(image.tobytes()).decode()
    return f"{{data: bytes('{content}'), height: {height}, width: {width}, channels: {channels}}}"


def pixels(found: Any) -> Pixels:
    data = np.frombuffer(base64.b64decode(found["data"]), np.uint8)
    return data.reshape(found["height"], found["width"], found["channels"])


def fitted(page: Page, image: Pixels, height: int, width: int, *, tall: bool) -> Pixels:
    order = json.dumps(tall)
    script = f"engine.fit({as_image(image)}, {height}, {width}, {order})"
    return pixels(
        page.run(f"(() => {{const f = {script}; return {{...f, data: text(f.data)}};}})()")
    )


def test_the_scripts_of_the_box_are_small_and_alone() -> None:
    ours = [script(name) for name in SCRIPTS if name != "page.js"]
    assert sum(len(each.encode()) for each in ours) <= 25_000
    for name in SCRIPTS:
        assert not re.search(
            r"\b(fetch|XMLHttpRequest|import|eval|innerHTML|https?:)\b", asset(name)
        )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("const a = 1; // one\nlet b = - -a;\n", "let a=1;let b=- -a;\n"),
        ('x = "a // b" + `c  d ${e + 1}`;', 'x="a // b"+`c  d ${e + 1}`;\n'),
        ("return x\n  + y;\nfoo()\nbar()\n", "return x\n+y;foo()\nbar()\n"),
        ("if (a) return;\nelse throw new Error(1)", "if(a)return;else throw new Error(1)\n"),
        ("a = b ++ + 1", "a=b++ +1\n"),
        ("if (a) {\n  b([1, 2,], {c,},);\n}\nd", "if(a){b([1,2],{c})}\nd\n"),
        ("for (; a; ) { b = `;}` }\n", "for(;a;){b=`;}`}\n"),
    ],
)
def test_shrinking_leaves_what_a_script_means(code: str, expected: str) -> None:
    assert shrunk(code) == expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((32, 32), (32, 32)),
        ((1, 1), (7, 5)),
        ((480, 640), (32, 32)),
        ((641, 233), (28, 28)),
        ((301, 32), (32, 32)),
        ((40, 32), (32, 32)),
        ((33, 500), (48, 20)),
        ((5, 9), (64, 64)),
        ((100, 37), (3, 60)),
    ],
)
def test_pictures_are_resized_to_the_bit_as_pillow_does(
    page: Page, shape: tuple[int, int], size: tuple[int, int], channels: int
) -> None:
    generator = np.random.default_rng(sum(shape))
    # Only black and white: where the filter swings beyond both, values are clipped in between.
    image = generator.integers(0, 2, (*shape, channels), dtype=np.uint8) * 255
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    expected = fit(picture, Format(*size, channels))
    assert (fitted(page, image, *size, tall=tall_first()) == expected).all()


def test_which_way_goes_first_is_seen(page: Page) -> None:
    image = np.random.default_rng(0).integers(0, 2, (200, 20, 1), dtype=np.uint8) * 255
    assert (fitted(page, image, 16, 16, tall=True) != fitted(page, image, 16, 16, tall=False)).any()


def jpegs() -> dict[str, dict[str, Any]]:
    """Return kinds of JPEG files, by what their writer is told."""
    return {
        "plain": {},
        "no subsampling": {"subsampling": 0},
        "half the columns": {"subsampling": 1},
        "rough": {"quality": 10},
        "fine": {"quality": 100, "subsampling": 0},
        "progressive": {"progressive": True},
        "progressive, half the columns": {"progressive": True, "subsampling": 1, "quality": 95},
        "restarts": {"restart_marker_blocks": 3},
        "progressive with restarts": {"restart_marker_blocks": 7, "progressive": True},
        "optimized": {"optimize": True},
        "red, green, blue": {"keep_rgb": True},
        "gray": {"gray": True},
        "gray, progressive": {"gray": True, "progressive": True},
        **{f"turned, way {way}": {"way": way} for way in range(1, 9)},
    }


@pytest.mark.parametrize("size", [(131, 257), (411, 300)])
@pytest.mark.parametrize("kind", jpegs())
def test_large_jpegs_are_decoded_to_the_bit_as_python_does(
    page: Page, cifar10_test: Any, kind: str, size: tuple[int, int]
) -> None:
    options = jpegs()[kind]
    picture = tiles(cifar10_test.images[:12], 3, 4).resize(size, Image.Resampling.BICUBIC)
    if options.pop("gray", False):
        picture = picture.convert("L")
    exif = picture.getexif()
    exif[0x0112] = options.pop("way", 1)
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif, **options)
    for side in (64, 36, 16):
        opened = Image.open(io.BytesIO(file.getvalue()))
        opened.draft(None, (side, side))
        expected = np.asarray(ImageOps.exif_transpose(opened))
        content = base64.b64encode(file.getvalue()).decode()
        found = page.run(f"""(() => {{
            const found = jpeg.decode(bytes("{content}"), {side});
            return found && {{...found, data: text(found.data)}};
        }})()""")
        assert (pixels(found).reshape(expected.shape) == expected).all()


def test_other_files_are_left_to_the_browser(page: Page, cifar10_test: Any) -> None:
    picture = tiles(cifar10_test.images[:12], 3, 4)
    for name, made in (
        ("PNG", picture),
        ("JPEG", picture.resize((127, 300))),  # too small to be decoded at a half
        ("JPEG", picture.convert("CMYK").resize((300, 300))),
    ):
        file = io.BytesIO()
        made.save(file, name)
        content = base64.b64encode(file.getvalue()).decode()
        assert page.run(f"jpeg.decode(bytes('{content}'), 64)") is None
    file = io.BytesIO()
    picture.resize((300, 300)).save(file, "JPEG")
    for broken in (b"", b"\xff\xd8", file.getvalue()[:2000], file.getvalue()[:300]):
        content = base64.b64encode(broken).decode()
        assert page.run(f"jpeg.decode(bytes('{content}'), 64)") is None


def answers(page: Page, program: dict[str, Any], weights: str, images: Pixels) -> list[Any]:
    calls = ", ".join(f"engine.answer(opened, {as_image(image)})" for image in images)
    found: list[Any] = page.run(f"""(() => {{
        const opened = engine.open({json.dumps(program)}, "{weights}");
        return [{calls}];
    }})()""")
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operation_computes_what_torch_does(page: Page, name: str) -> None:
    model, shape = as_trained(name)
    program = trace(model, shape)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model.eval()(images).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-2  # images are told apart
    operations, weights = packed(program)
    page.run(f"var opened = engine.open({json.dumps({'operations': operations})}, '{weights}')")
    channels, height, width = shape
    for image, logits, rough in zip(
        images, follow(rounded(program), images).numpy(), expected, strict=True
    ):
        values = image.permute(1, 2, 0).contiguous().numpy().tobytes()
        content = f"bytes('{base64.b64encode(values).decode()}').buffer"
        found = page.run(
            f"engine.logits(opened, {{data: new Float32Array({content}), "
            f"shape: [{height}, {width}, {channels}]}})"
        )
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, rough, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("standardize", ["image", "dataset", "unit", "mean_image"])
@pytest.mark.parametrize("views", ["one", "mirrored", "shifted", "unsure", "ten"])
def test_trial_images_become_input_as_they_do_in_python(
    page: Page, views: str, standardize: str
) -> None:
    data = arrays(FIVE, 40, (14, 17, 3))
    inputs = {"views": views, "standardize": standardize, "crop": 0.75}
    about = trained(data, inputs=inputs)
    logits = np.zeros((4, 5), np.float32)
    calibration = calibrate(
        logits, np.zeros(4, np.int64), step=7, averaged=True, split="test", margin=None
    )
    margins = {None, 0.2} if views == "unsure" else {None}
    for margin in margins:
        changed = dataclasses.replace(calibration, margin=margin, temperature=0.3)
        model = dataclasses.replace(about, calibration=changed)
        expected = model.classifier(Place.choose("cpu", "fp32")).probabilities(data.images[:12])
        found = answers(page, *box_program(model), data.images[:12])
        ours = np.array([each["probabilities"] for each in found])
        np.testing.assert_allclose(ours, expected, atol=1e-3)


@pytest.mark.parametrize(("channels", "views"), [(1, "one"), (3, "one"), (3, "ten")])
def test_the_page_is_unsure_where_python_is(page: Page, channels: int, views: str) -> None:
    data = arrays(FIVE, 300, (9, 11, channels))
    generator = np.random.default_rng(5)
    shades = np.rint(generator.uniform(20, 230, (300, 1, 1, channels))).astype(np.int64)
    images = (shades + (data.images.astype(np.int64) - 128) // 8).clip(0, 255).astype(np.uint8)
    plain = dataclasses.replace(data, images=images)
    about = trained(plain, inputs={"views": views, "crop": 0.8 if views == "ten" else 1.0})
    place = Place.choose("cpu", "fp32")
    logits = np.log(about.classifier(place).probabilities(images)).astype(np.float32)
    found = calibrate(
        logits,
        data.labels,
        step=7,
        averaged=True,
        split="test",
        margin=None,
        statistics=statistics_of(images),
    )
    least = float(np.quantile(np.exp(logits).max(1), 0.3))
    strange = np.concatenate([images[:25], data.images[:5], np.zeros_like(images[:2])])
    seen: set[str | None] = set()
    for calibration in (
        dataclasses.replace(found, temperature=1.0, least_probability=least, least_energy=None),
        dataclasses.replace(
            found, temperature=1.0, least_probability=None, kind=None, least_energy=0.9
        ),
    ):
        assert isinstance(calibration, Calibration)
        asked = dataclasses.replace(about, calibration=calibration)
        expected = [p.unsure for p in asked.classifier(place).predict(strange)]
        found_here = [each["unsure"] for each in answers(page, *box_program(asked), strange)]
        assert found_here == expected
        seen |= set(expected)
    assert seen == {None, "error", "unknown"}


def test_colours_become_gray_as_in_pillow(page: Page, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(image).save(path)
    expected = decode(path, Format(40, 50, 1))
    rgba = np.dstack([image, np.full((40, 50), 255, np.uint8)])
    content = base64.b64encode(rgba.tobytes()).decode()
    found = page.run(f"text(engine.inChannels(bytes('{content}'), 4, 40, 50, 1).data)")
    assert base64.b64decode(found) == expected.tobytes()
