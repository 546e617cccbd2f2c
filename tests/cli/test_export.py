"""Exports, and what is done with their files, as a user types the commands."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import deepcnn
from deepcnn.cli.main import run as command
from deepcnn.data.arrays import Arrays
from deepcnn.errors import DeepcnnError
from tests.helpers.box import check_answered, choose, drop
from tests.helpers.browser import Browser
from tests.serving.process import Server

EXAMPLES = 210
UPLOADED = """new Promise((done) => {
  const look = () => {
    const found = document.querySelector("#answers h2");
    if (found) done(found.textContent); else setTimeout(look, 10);
  };
  look();
})"""


@pytest.fixture(scope="module")
def home(cifar10_train: Arrays, cifar10_test: Arrays, tmp_path_factory: Any) -> Path:
    """A folder with real images, a run that was trained on them, and some of them as files."""
    folder: Path = tmp_path_factory.mktemp("home")
    (folder / "data").mkdir()
    for name, split, count in (("train", cifar10_train, 150), ("test", cifar10_test, EXAMPLES)):
        path = folder / "data" / f"{name}.npz"
        np.savez(path, images=split.images[:count], labels=split.labels[:count])
    (folder / "pictures").mkdir()
    for i in range(5):
        Image.fromarray(cifar10_test.images[i]).save(folder / "pictures" / f"{i}.png")
    options = [
        *("--data", str(folder / "data"), "--model.widths", "16", "16", "--steps", "3"),
        *("--batch-size", "50", "--validation-size", "0", "--evaluate-on", "test"),
        *("--feed", "preloaded", "--threads", "1", "--device", "cpu", "--precision", "fp32"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert command(["train", "mnist", "--run-dir", "runs/first", *options]) == 0
        assert command(["export", "runs/first", "--threads", "1", "-o", "net.onnx"]) == 0
    return folder


@pytest.fixture
def there(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, where commands are given."""
    copy = Path(shutil.copytree(home, tmp_path / "home"))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def graph(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no graph be traced again."""
    from deepcnn.inference import export

    content = (home / "net.onnx").read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda *_: content)


@pytest.mark.usefixtures("graph")
def test_the_newest_run_is_exported_and_what_was_found_is_said(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["export", "--threads", "1"]) == 0
    said = capsys.readouterr()
    assert said.err == "deepcnn: the run is runs/first\n"
    assert (there / "runs/first/export/model.onnx").is_file()
    for line in (
        "Network:      step 3, raw parameters",
        "Written:      runs/first/export/model.onnx (",
        f"Compared:     all {EXAMPLES} test images by ONNX Runtime",
        "no label differs, no probability by more than",
        f" of {EXAMPLES} test images, 95 % interval ",
        "Milliseconds: one image ",
        "Beside it:    export.json, vectors.npz",
    ):
        assert line in said.out, line


@pytest.mark.usefixtures("graph")
def test_json_is_what_the_record_says(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "runs/first", "--json", "--threads", "1", "-o", "a/b.onnx"]) == 0
    *events, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert all("event" in event for event in events)
    assert last.pop("path") == "a/b.onnx"
    assert last == json.loads((there / "a/export.json").read_text())


def predictions(form: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    assert command(["predict", *form.split(), "pictures", "--format", "csv"]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


@pytest.mark.usefixtures("there")
def test_files_predict_as_their_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "runs/first", "--to", "safetensors", "-o", "net.safetensors"]) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    expected = predictions("runs/first --threads 1", capsys)
    assert len(expected) == 5
    for form in ("net.onnx --threads 1", "net.onnx --runtime openvino", "net.safetensors"):
        for found, answer in zip(predictions(form, capsys), expected, strict=True):
            for name in ("path", "label", "unsure"):
                assert found[name] == answer[name], form
            for name in (name for name in answer if name.startswith("p_")):
                assert float(found[name]) == pytest.approx(float(answer[name]), abs=1e-4), form


def test_a_training_starts_from_weights(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["export", "--to", "safetensors", "-o", "net.safetensors"]) == 0
    train = ["train", "mnist", "--data", "data", "--steps", "1", "--validation-size", "0"]
    train += ["--evaluate-on", "test", "--feed", "preloaded", "--start-from", "net.safetensors"]
    assert command([*train, "--run-dir", "again", "--model.widths", "16", "16"]) == 0
    stored = json.loads((there / "again/config.json").read_text())
    assert stored["start_from"] == str(there / "net.safetensors")
    with pytest.raises(
        DeepcnnError,
        match=r"net\.safetensors has a network of other widths .*--model\.widths 16 16",
    ):
        command([*train, "--run-dir", "other", "--model.widths", "17", "16"])
    assert not (there / "other").exists()


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("export runs/none", "expected the directory of a run"),
        ("export runs/first -o net.pb", r"ends in \.onnx"),
        ("export runs/first --step 2", "expected a checkpoint of step 2, found 3"),
        ("export runs/first --data nowhere", "say by --data where they lie"),
        ("export runs/first --to html --data data", "^data: found data, .* for html$"),
        (
            "export runs/first --to safetensors --threads 1",
            "^threads: found 1, .* for safetensors$",
        ),
        ("predict net.onnx pictures --runtime torch", "torch does not read net.onnx"),
        ("predict net.onnx pictures --step 3", "holds the network of one step"),
        ("predict runs/first pictures --runtime openvino", "deepcnn export RUN --to onnx"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: str, message: str) -> None:
    with pytest.raises(DeepcnnError, match=message) as error:
        command(arguments.split())
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.usefixtures("there")
def test_a_form_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(["export", "runs/first", "--to", "tflite"])
    assert end.value.code == 2
    assert "onnx" in capsys.readouterr().err


def test_a_page_opens_from_disk_and_answers_as_its_run(
    there: Path, capsys: pytest.CaptureFixture[str], browser: Browser
) -> None:
    assert command(["export", "runs/first", "--to", "html"]) == 0
    path = there / "runs/first/export/model.html"
    said = capsys.readouterr().out
    for line in (
        "Network:      step 3, raw parameters",
        "Written:      runs/first/export/model.html (",
        "Compared:     with the network on 32 images: no probability differs by more than 0.01",
    ):
        assert line in said, line
    picture = there / "pictures" / "0.png"
    (expected,) = deepcnn.load("runs/first", device="cpu").predict(picture)
    with browser.page(path.as_uri()) as page:
        for give in (drop, choose):
            page.run("document.getElementById('took').textContent = ''")
            give(page, picture)
            check_answered(page, expected)
        assert page.complaints() == []


@pytest.mark.usefixtures("there")
def test_a_page_goes_where_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    exported = deepcnn.export("runs/first", "html")
    assert command(["export", "runs/first", "--to", "html", "-o", "new/a.html", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": "new/a.html", **exported.record, "file": "a.html"}
    assert told["bytes"] == exported.path.stat().st_size
    assert Path("new/a.html").read_bytes() == exported.path.read_bytes()


def test_an_onnx_file_is_served_with_the_page_that_sends_pictures(
    there: Path, browser: Browser
) -> None:
    (expected,) = deepcnn.load("net.onnx").predict(there / "pictures" / "0.png")
    (there / "log").mkdir()
    server = Server(there / "log", str(there / "net.onnx"))
    try:
        address = server.address()
        assert "The page sends its pictures here: an ONNX file" in server.out
        with browser.page(address) as page:
            choose(page, there / "pictures" / "0.png", "#files")
            assert page.run(UPLOADED) == f"0.png: {expected.label}"
            asked = [f"asked for {address}/health", f"asked for {address}/predict"]
            assert page.complaints() == asked
        assert server.stop() == 0
        assert server.err == ""
    finally:
        server.kill()


def test_a_page_that_cannot_be_written_is_said(there: Path) -> None:
    (there / "file").write_text("")
    with pytest.raises(DeepcnnError, match=r"^file/a\.html: cannot be written \(.*--out"):
        command(["export", "runs/first", "--to", "html", "-o", "file/a.html"])
    with pytest.raises(DeepcnnError, match=r"^out: expected a name that ends in \.html"):
        command(["export", "runs/first", "--to", "html", "-o", "a.onnx"])
    assert not (there / "a.onnx").exists()
