"""Pictures, and `predict` to ask about them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deepcnn.data.arrays import Arrays
from tests.helpers.command import run_here
from tests.helpers.pictures import saved, write
from tests.helpers.predicting import Predict, TypeIn


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, cifar10_test: Arrays) -> Path:
    """Real images, some of them of other sizes; and what is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    images = [Image.fromarray(image) for image in cifar10_test.images[:6]]
    files = {
        "photos/1.png": saved(images[0]),
        "photos/2.jpg": saved(images[1].resize((90, 61)), "JPEG"),
        "photos/more/3.png": saved(images[2].resize((20, 21))),
        "photos/more/4.gif": saved(images[3].quantize(64), "GIF"),
        "photos/notes.txt": b"no picture",
        "bad/0.png": saved(images[4]),
        "bad/1.png": b"no picture",
        "bad/2.png": saved(images[5])[:300],
    }
    return write(folder, files)


@pytest.fixture
def ask(
    tiny_run: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Predict:
    """Run `predict RUN …` among the photos: its status, standard output and standard error."""
    monkeypatch.chdir(photos)

    def asking(*arguments: str, run: str | None = None) -> tuple[int, bytes, str]:
        first = [str(tiny_run)] if run is None else [run] if run else []
        status = run_here(monkeypatch, "predict", *first, "--device", "cpu", *arguments)
        printed = capsysbinary.readouterr()
        return status, printed.out, printed.err.decode()

    return asking


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[TypeIn]:
    """Put something on standard input."""
    with tempfile.TemporaryFile() as file:
        monkeypatch.setattr(sys, "stdin", file)

        def typing(content: bytes) -> None:
            file.truncate(0)
            file.seek(0)
            file.write(content)
            file.seek(0)

        yield typing
