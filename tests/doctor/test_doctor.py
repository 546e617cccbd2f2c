"""The doctor, on real pictures with faults that were planted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deepcnn.cli.main import run
from deepcnn.data.arrays import Arrays
from deepcnn.data.open import open_dataset
from deepcnn.doctor.findings import counted
from deepcnn.errors import DataError, RunError
from deepcnn.events import Event, Noted
from deepcnn.settings import DataSpec

Examined = tuple[dict[str, Any], Path, int]
CLASSES = ("cat", "dog")


def save(image: NDArray[np.uint8], path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, cifar10_test: Arrays) -> Path:
    """120 pictures of two classes in two splits, with planted faults."""
    root = tmp_path_factory.mktemp("photos") / "set"
    images = cifar10_test.images
    for i in range(120):
        split = "train" if i < 80 else "test"
        save(images[i], root / split / CLASSES[i % 2] / f"{i:03}.png")
    save(images[0], root / "test/cat/exact.png")
    save(images[2][:, ::-1], root / "test/cat/mirrored.png")
    wide = np.pad(images[4], ((2, 0), (0, 2), (0, 0)), "edge")[:32, 2:]
    save(wide, root / "test/cat/shifted.png")
    save(images[6], root / "test/cat/recompressed.jpg", quality=60)
    rescaled = Image.fromarray(images[8]).resize((48, 48), Image.Resampling.BICUBIC)
    save(np.asarray(rescaled), root / "test/cat/rescaled.png")
    save(images[10], root / "train/dog/contradicts.png")
    save(np.zeros((32, 32, 3), np.uint8), root / "train/dog/empty.png")
    save(images[200][:, :, 0], root / "train/dog/gray.png")
    save(np.repeat(images[201], 3, 1), root / "train/dog/wide.png")
    clear = np.dstack([images[202], np.full((32, 32), 255, np.uint8)])
    clear[:16, :, 3] = 0
    save(clear, root / "train/dog/transparent.png")
    turned = Image.Exif()
    turned[274] = 3
    save(images[203], root / "train/dog/turned.jpg", exif=turned)
    cut = (root / "train/dog/001.png").read_bytes()
    (root / "train/dog/truncated.png").write_bytes(cut[: len(cut) // 2])
    (root / "train/dog/no_picture.png").write_bytes(b"nothing")
    (root / "train/cat/phone.heic").write_bytes(b"x")
    (root / "train/cat/web.avif").write_bytes(b"x")
    (root / "train/cat/nameless").write_bytes(b"x")
    (root / "train/cat/Thumbs.db").write_bytes(b"x")
    (root / "__MACOSX/train").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def examined(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """What is printed as JSON about the photos, the folder of page and fixes, the exit status."""
    import contextlib
    import io

    out = tmp_path_factory.mktemp("out")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        page, fixes = str(out / "page.html"), str(out / "fixes.csv")
        status = run(["doctor", str(photos), "--json", "--out", page, "--fixes", fixes])
    return json.loads(printed.getvalue()), out, status


def pairs(found: dict[str, Any]) -> dict[frozenset[str], dict[str, Any]]:
    return {
        frozenset({Path(d["a"]["path"]).name, Path(d["b"]["path"]).name}): d
        for d in found["duplicates"]
    }


def test_planted_duplicates_are_found_and_a_leak_fails(examined: Examined) -> None:
    found, _, status = examined
    planted = {
        ("000.png", "exact.png"): "exact",
        ("002.png", "mirrored.png"): "near",
        ("004.png", "shifted.png"): "near",
        ("006.png", "recompressed.jpg"): "near",
        ("008.png", "rescaled.png"): "near",
        ("010.png", "contradicts.png"): "exact",
    }
    there = pairs(found)
    assert {names: there[frozenset(names)]["kind"] for names in planted} == planted
    assert there.keys() == {frozenset(names) for names in planted}
    assert not there[frozenset(("010.png", "contradicts.png"))]["same_label"]
    assert there[frozenset(("000.png", "exact.png"))]["similarity"] == 1
    assert status == 1


def test_the_places_are_those_in_the_splits(photos: Path, examined: Examined) -> None:
    found, _, _ = examined
    dataset = open_dataset(DataSpec(data=str(photos), skip_bad=True))
    for duplicate in found["duplicates"]:
        for place in (duplicate["a"], duplicate["b"]):
            shard = dataset.split(place["split"]).shards[0]
            assert str(shard.listing.paths[place["index"]]) == place["path"]  # type: ignore[attr-defined]
    assert found["splits"] == {
        split: dict(zip(CLASSES, dataset.counts(split).tolist(), strict=True))
        for split in ("train", "test")
    }
    assert found.keys() == {"duplicates", "label_suspects", "problems", "splits"}


def test_odd_files_are_named(examined: Examined) -> None:
    found, _, _ = examined
    told = {(p["kind"], Path(p["path"]).name) for p in found["problems"] if p["path"]}
    assert told >= {
        ("unreadable", "truncated.png"),
        ("unreadable", "no_picture.png"),
        ("empty", "empty.png"),
        ("gray among colour", "gray.png"),
        ("cropped", "wide.png"),
        ("odd aspect", "wide.png"),
        ("transparent", "transparent.png"),
        ("turned by EXIF", "turned.jpg"),
        ("ignored", "phone.heic"),
        ("ignored", "web.avif"),
        ("ignored", "nameless"),
        ("system files", "Thumbs.db"),
        ("system files", "__MACOSX"),
    }
    by_kind = {p["kind"]: p["detail"] for p in found["problems"] if p["path"]}
    assert by_kind["cropped"].startswith("67 % of its 96×32")
    assert by_kind["transparent"].startswith("50 %")
    assert found["problems"][0]["kind"] == "unreadable"


def test_the_page_refers_to_nothing_and_escapes_names(
    examined: Examined, tmp_path: Path, photos: Path
) -> None:
    _, out, _ = examined
    page = (out / "page.html").read_text()
    assert "exact.png" in page
    assert page.count("data:image/png;base64,") >= 12
    assert "http://" not in page
    assert "https://" not in page
    hostile = "<script>alert(1)<"
    for i, name in enumerate((hostile, "b")):
        for j in range(3):
            image = np.asarray(Image.open(photos / f"train/{CLASSES[i]}/{2 * j + i:03}.png"))
            save(image, tmp_path / "s" / name / f"<img src=x>{j}.png")
    (tmp_path / "s" / hostile / "0.png").write_bytes(b"no")
    assert run(["doctor", str(tmp_path / "s"), "--out", str(tmp_path / "p.html")]) == 0
    page = (tmp_path / "p.html").read_text()
    assert "<img src=x>" not in page
    assert hostile not in page
    assert "&lt;script&gt;" in page


def test_drawn_digits_of_different_hands_do_not_flood_the_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(Path(__file__).with_name("digits.npz")) as digits:
        images, labels = 15 * digits["images"][:320], digits["labels"][:320]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = "train" if i % 5 else "test"
        save(image, tmp_path / split / str(label) / f"{i}.png")
    save(images[0], tmp_path / "train/0/copy.png")
    assert run(["doctor", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["duplicates"][0]["kind"] == "exact"
    assert len(found["duplicates"]) < 5
    (alike,) = (p["detail"] for p in found["problems"] if p["kind"] == "alike")
    assert int(alike.split(" pairs more")[0].replace(",", "")) >= 50


def test_one_is_told_in_the_singular() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(2000, "duplicate") == "2,000 duplicates"


def test_what_is_too_common_to_be_told_one_by_one_is_counted(
    tmp_path: Path, cifar10_test: Arrays, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(130):
        image = cifar10_test.images[i] if i < 70 else np.full((8, 8, 3), i, np.uint8)
        save(image, tmp_path / "set" / CLASSES[i % 2] / f"{i:03}.png")
    fixes = tmp_path / "fixes.csv"
    assert run(["doctor", str(tmp_path / "set"), "--fixes", str(fixes)]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("Empty: 60")
    assert lines[place + 11] == "  … 50 more"
    said = f"fixes: {fixes}, by which training leaves out 60 of 130 examples"
    assert lines[-1] == said


def test_fixes_leave_out_what_leaks(photos: Path, examined: Examined) -> None:
    _, out, _ = examined
    rows = list(csv.DictReader((out / "fixes.csv").read_text().splitlines()))
    excluded = {Path(row["path"]).name for row in rows if row["action"] == "exclude"}
    assert excluded == {
        *("000.png", "002.png", "004.png", "006.png", "008.png"),
        *("010.png", "contradicts.png", "empty.png"),
    }
    spec = DataSpec(data=str(photos), skip_bad=True)
    whole = open_dataset(spec).split("train").load()
    table = str(out / "fixes.csv")
    left = open_dataset(DataSpec(data=str(photos), skip_bad=True, exclude=table)).split("train")
    keep = np.ones(len(whole), bool)
    keep[[int(row["index"]) for row in rows if row["action"] == "exclude"]] = False
    assert len(left) == len(whole) - 8
    assert np.array_equal(left.load().images, whole.images[keep])


def test_a_table_of_other_data_is_refused(photos: Path, tmp_path: Path) -> None:
    def opened(text: str) -> None:
        (tmp_path / "t.csv").write_text(text)
        table = str(tmp_path / "t.csv")
        open_dataset(DataSpec(data=str(photos), skip_bad=True, exclude=table)).split("train")

    with pytest.raises(DataError, match="below 86, found 86"):
        opened("split,index\ntrain,86\n")
    with pytest.raises(DataError, match="found no index"):
        opened("split,place\ntrain,1\n")
    with pytest.raises(DataError, match="line 2: expected an index"):
        opened("split,index\ntrain,-1\n")
    with pytest.raises(DataError, match=r"expected cat/zzz\.png as number 0"):
        opened("split,index,path\ntrain,0,cat/zzz.png\n")


def test_held_out_examples_are_named_by_their_place_on_disk(
    photos: Path, examined: Examined
) -> None:
    _, out, _ = examined
    spec = DataSpec(
        data=str(photos), skip_bad=True, validation_size=20, exclude=str(out / "fixes.csv")
    )
    dataset = open_dataset(spec)
    own = open_dataset(DataSpec(data=str(photos), skip_bad=True)).split("train").load()
    for split in ("train", "validation"):
        expected = own.images[dataset.places(split)]
        assert np.array_equal(dataset.split(split).load().images, expected)
    assert len(dataset.places("validation")) == 20


def test_like_named_classes_and_leaks_by_name_are_told(
    tmp_path: Path, cifar10_test: Arrays
) -> None:
    root, images = tmp_path / "set", iter(cifar10_test.images[300:])
    for split in ("train", "test"):
        for name in ("café", "CAFE", "tea"):
            for i in range(4):
                save(next(images), root / split / name / f"{split}{name[0]}-{i}.png")
    for i in range(3):
        save(next(images), root / "train/tea" / f"video7_{i}.png")
        save(next(images), root / "test/tea" / f"video7_{10 + i}.png")
    from deepcnn.doctor.examine import examine

    found, _ = examine(DataSpec(data=str(root)))
    details = {p.kind: p.detail for p in found.problems}
    assert "'CAFE', 'caf\\xe9' differ" in details["like-named classes"]
    assert details["name leak"].startswith("video7 and a number: 3 test files, and 3 of train")
    assert "15 examples, too few" in details["small split"]


def test_a_run_stores_its_table_and_resume_notices_a_change(
    photos: Path, examined: Examined, tmp_path: Path
) -> None:
    from deepcnn.training.start import resume, train
    from tests.helpers.tiny import tiny

    _, out, _ = examined
    table = tmp_path / "fixes.csv"
    table.write_bytes((out / "fixes.csv").read_bytes())
    for feed in ("preloaded", "streamed"):
        path = tmp_path / feed
        config = tiny(
            data=str(photos), skip_bad=True, exclude=str(table), steps=2, batch_size=4, feed=feed
        )
        train(config, run_dir=path)
        stored = json.loads((path / "config.json").read_text())
        assert stored["exclude"] == str(table)
        inputs = json.loads((path / "inputs.json").read_text())
        assert sum(inputs["examples"]) == 86 - 8
    resume(path)
    table.write_text(table.read_text().replace("almost empty", "nearly empty"))
    with pytest.raises(RunError, match="changed since this run began"):
        resume(path)
    status = run(["doctor", str(path), "--json"])
    assert status in (0, 1)


def test_a_training_on_senseless_data_is_warned_of_them(
    tmp_path: Path, cifar10_test: Arrays
) -> None:
    from deepcnn.training.start import train
    from tests.helpers.tiny import tiny

    images = cifar10_test.images[:31]
    labels = np.array([0] * 29 + [1] * 2, np.int64)
    np.savez(
        tmp_path / "s.npz", x_train=images, y_train=labels, x_test=images[:3], y_test=labels[:3]
    )
    told: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Noted):
            told.append(event.text)

    config = tiny(data=str(tmp_path / "s.npz"), steps=2, batch_size=4)
    result = train(config, run_dir=tmp_path / "run", report=True, emit=hear)
    assert sum("The test split has 3 examples, too few" in text for text in told) == 2
    page = (result.run / "report.html").read_text()
    assert "The test split has 3 examples, too few" in page
    assert "3 of these images are in the training set, too, pixel for pixel." in page


def test_the_page_fits_a_telephone_and_asks_for_nothing(examined: Examined, browser: Any) -> None:
    _, out, _ = examined
    for width in (390, 1280):
        with browser.page((out / "page.html").as_uri(), width, dark=width == 390) as page:
            assert page.run("document.documentElement.scrollWidth") <= width
            assert page.complaints() == []
            broken = "[...document.images].filter((i) => !i.naturalWidth).length"
            assert page.run(broken) == 0


def test_many_findings_of_a_kind_are_counted_in_full(
    tmp_path: Path, cifar10_test: Arrays, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(70):  # saved with values of 0 to 1, as if they were 0 to 255
        save(cifar10_test.images[i] // 200, tmp_path / CLASSES[i % 2] / f"{i}.png")
    assert run(["doctor", str(tmp_path), "--fixes", str(tmp_path / "fixes.csv")]) == 0
    out = capsys.readouterr().out
    assert ": 2 classes; 70 train\n" in out
    heading, first = out[out.index("Empty: ") :].splitlines()[:2]
    assert heading == "Empty: 70"
    assert "70 of 70 train images" in first
    assert "values of 0 to 1" in first
    shown = out.count("Almost all pixels are equal")
    assert f"  … {70 - shown} more\n" in out
    table = str(tmp_path / "fixes.csv")
    with pytest.raises(DataError, match="leaves out all 70 examples of the train split"):
        open_dataset(DataSpec(data=str(tmp_path), exclude=table)).split("train")


def test_it_is_told_how_many_examples_a_table_leaves_out(photos: Path, examined: Examined) -> None:
    _, out, _ = examined
    spec = DataSpec(data=str(photos), skip_bad=True, exclude=str(out / "fixes.csv"))
    dataset = open_dataset(spec)
    assert dataset.left_out("train") == f"{out / 'fixes.csv'}: 8 of 86 train examples are left out"
    assert dataset.left_out("test") == ""


def test_a_large_group_of_equal_images_does_not_hide_the_others(
    tmp_path: Path, cifar10_test: Arrays, capsys: pytest.CaptureFixture[str]
) -> None:
    from deepcnn.doctor.examine import examine

    for i in range(30):  # twenty of one image, and five pairs
        image = cifar10_test.images[0 if i < 20 else i // 2]
        save(image, tmp_path / CLASSES[0] / f"{i:02}.png")
    save(cifar10_test.images[40], tmp_path / CLASSES[1] / "other.png")
    found, _ = examine(DataSpec(data=str(tmp_path)))
    assert len(found.duplicates) == 19 + 5
    assert len({d.a for d in found.duplicates[:6]}) == 6
    assert found.repeated == 30
    assert run(["doctor", str(tmp_path)]) == 0
    assert "In all, 30 of 31 examples have a duplicate. If some are" in capsys.readouterr().out
