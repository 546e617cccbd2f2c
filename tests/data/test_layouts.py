"""Data of one's own: layouts of folders, other sizes, other classes, and training on them."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from deepcnn import presets
from deepcnn.data import catalog, layouts
from deepcnn.data import open as datasets
from deepcnn.data import survey as contact_sheet
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar, idx, listings, tfrecord
from deepcnn.data.layouts import split_of
from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.source import in_memory
from deepcnn.errors import DataError
from deepcnn.events import Event, Noted, ignore
from deepcnn.inference.evaluation import evaluate
from deepcnn.learning import objective
from deepcnn.training.start import start as training


def images_of(
    count: int, height: int, width: int, channels: int, classes: int = 3, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Learnable images: the class is how bright the left half is."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 60, (count, height, width, channels), dtype=np.uint8)
    images[:, :, : width // 2] += (labels * (190 // classes)).astype(np.uint8)[:, None, None, None]
    return images, labels


def write_pictures(root: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(folder / f"{i:05}.png")


def equal(found: Arrays, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, labels)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-images-idx3-ubyte", "train"),
        ("t10k-images-idx3-ubyte.gz", "test"),
        ("data_batch_3.bin", "train"),
        ("test_batch.bin", "test"),
        ("validation_batch_1.bin", "validation"),
        ("val.tfrecords", "validation"),
        ("test-00001-of-00004.tfrecords", "test"),
        ("train_32x32.mat", "train"),
        ("testing.npz", "test"),
        ("cats.tfrecords", "train"),
        ("tests are fun.npz", "train"),
        ("1.bin", "train"),
    ],
)
def test_the_split_is_told_by_the_first_word_of_a_name(name: str, split: str) -> None:
    assert split_of(name) == split


def test_every_layout_is_recognized(tmp_path: Path) -> None:
    rgb, labels = images_of(12, 32, 32, 3)
    other, other_labels = images_of(6, 32, 32, 3, seed=1)

    def put(name: str, content: bytes) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    put("ten/data_batch_2.bin", cifar.encode(rgb[6:], labels[6:]))
    put("ten/data_batch_1.bin", cifar.encode(rgb[:6], labels[:6]))
    put("ten/test_batch.bin", cifar.encode(other, other_labels))
    coarse = np.zeros((12, 1), np.uint8)
    hundred = np.frombuffer(cifar.encode(rgb, labels), np.uint8).reshape(12, -1)
    put("hundred/train.bin", np.concatenate([coarse, hundred], 1).tobytes())
    put("records/train-0.tfrecords", tfrecord.encode(rgb, labels))
    put("records/validation.tfrecords", tfrecord.encode(other, other_labels))
    put("idx/train-images-idx3-ubyte.gz", gzip.compress(idx.encode_images(rgb)))
    put("idx/train-labels-idx1-ubyte", idx.encode_labels(labels))
    (tmp_path / "keras").mkdir()
    np.savez_compressed(
        tmp_path / "keras/my.npz",
        x_train=rgb,
        y_train=labels[:, None],
        x_test=other,
        y_test=other_labels,
    )
    (tmp_path / "svhn").mkdir()
    for name, x, y in (("train", rgb, labels), ("test", other, other_labels)):
        digits = np.where(y == 0, 10, y).astype(np.uint8)[:, None]
        scipy.io.savemat(
            tmp_path / f"svhn/{name}_32x32.mat", {"X": x.transpose(1, 2, 3, 0), "y": digits}
        )
    write_pictures(tmp_path / "flat", rgb, labels)
    write_pictures(tmp_path / "split/train", rgb, labels)
    write_pictures(tmp_path / "split/val", other, other_labels)
    (tmp_path / "kaggle/train").mkdir(parents=True)
    rows = ["id,label"]
    for i, (image, label) in enumerate(zip(rgb, labels, strict=True), start=1):
        Image.fromarray(image).save(tmp_path / f"kaggle/train/{i}.png")
        rows.append(f"{i},kind{label}")
    put("kaggle/trainLabels.csv", "\n".join(rows).encode())

    splits = {
        "ten": ("train", "test"),
        "hundred": ("train",),
        "records": ("train", "validation"),
        "idx": ("train",),
        "keras": ("train", "test"),
        "svhn": ("train", "test"),
        "flat": ("train",),
        "split": ("train", "validation"),
        "kaggle": ("train",),
        "ten/data_batch_1.bin": ("train",),
        "keras/my.npz": ("train", "test"),
        "records/validation.tfrecords": ("validation",),
    }
    for name, expected in splits.items():
        assert datasets.splits(tmp_path / name) == expected, name
    for name in ("ten", "hundred", "records", "idx", "keras", "svhn", "flat", "split", "kaggle"):
        equal(load_dataset(tmp_path / name, "train"), rgb, labels)
    for name, split in (
        ("ten", "test"),
        ("records", "validation"),
        ("keras", "test"),
        ("svhn", "test"),
        ("split", "validation"),
    ):
        equal(load_dataset(tmp_path / name, split), other, other_labels)  # type: ignore[arg-type]
    assert load_dataset(tmp_path / "split", "validation").classes == (
        "class 0",
        "class 1",
        "class 2",
    )
    assert load_dataset(tmp_path / "kaggle", "train").classes == ("kind0", "kind1", "kind2")
    assert load_dataset(tmp_path / "records", "train").classes == ("0", "1", "2")
    assert load_dataset(tmp_path / "svhn", "test").classes == tuple("0123456789")
    with pytest.raises(DataError, match=r"expected a test split, found only train, validation"):
        load_dataset(tmp_path / "records", "test")


def test_beside_class_folders_other_files_are_something_else(tmp_path: Path) -> None:
    images, labels = images_of(6, 8, 9, 3)
    for root in ("flat", "split/train"):
        write_pictures(tmp_path / root, images, labels)
    for root in ("flat", "split"):
        for stray in ("notes.csv", "weights.npz", "model.bin", "x.mat", "cache.tfrecords"):
            (tmp_path / root / stray).write_bytes(b"something else")
        equal(load_dataset(tmp_path / root, "train"), images, labels)
    write_pictures(tmp_path / "records/previews", images, labels)
    (tmp_path / "records/train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    assert layouts.find(tmp_path / "records", emit=ignore).form == "TFRecord"


def test_pictures_of_other_splits_take_the_form_of_the_training_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", *images_of(6, 20, 30, 3))
    write_pictures(tmp_path / "test", *images_of(3, 40, 60, 1))
    assert load_dataset(tmp_path, "test").images.shape == (3, 20, 30, 3)


def test_bad_pictures_are_named_and_skipped_only_when_asked(tmp_path: Path) -> None:
    write_pictures(tmp_path, *images_of(6, 8, 8, 3))
    (tmp_path / "class 1" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"1 of 7 files .*broken\.png.*--skip-bad"):
        load_dataset(tmp_path, "train")
    heard: list[Event] = []
    assert len(load_dataset(tmp_path, "train", skip_bad=True, emit=heard.append)) == 6
    assert any(isinstance(e, Noted) and "broken.png" in e.text for e in heard)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected a JSON list"),
        (b'{"a": 1}', "expected a JSON list"),
        (b'["a", "a"]', "2 names, of which 1 differ"),
        (b"[]", "0 names"),
        (b'["\\ud800"]', "expected a JSON list"),
        (b"[" * 100_000, "expected a JSON list"),
    ],
)
def test_a_hostile_file_of_classes(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(*images_of(3, 4, 4, 1)))
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path, "train")


def test_an_empty_or_unreadable_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="expected a folder of class folders"):
        load_dataset(tmp_path, "train")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        load_dataset(tmp_path, "train")


def test_labels_are_checked_before_the_first_step(tmp_path: Path) -> None:
    images, labels = images_of(40, 32, 32, 3)
    labels[17] = 7
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    (tmp_path / "test.tfrecords").write_bytes(tfrecord.encode(images, labels))
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    for feed in ("preloaded", "queued", "streamed"):
        config = dataclasses.replace(presets.tiny(), data=str(tmp_path), feed=feed)
        with pytest.raises(
            DataError, match=r"train\.tfrecords: expected labels 0 to 2, .*found 7 for example 17"
        ):
            training.train(config, run_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", list(presets.PRESETS))
@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 36, 3), (40, 24, 4)])
def test_other_sizes_flow_through_every_preset(
    tmp_path: Path, preset: str, shape: tuple[int, int, int]
) -> None:
    images, labels = images_of(60, *shape, classes=4)
    np.savez(tmp_path / "train.npz", images=images, labels=labels)
    np.savez(tmp_path / "test.npz", images=images, labels=labels)
    config = dataclasses.replace(
        presets.PRESETS[preset](),
        data=str(tmp_path),
        steps=2,
        batch_size=10,
        validation_size=0,
        evaluate_on=(),
        summary_every=1,
        device="cpu",
        precision="fp32",
    )
    result = training.train(config, run_dir=tmp_path / "run")
    assert result.evaluated is not None
    assert (result.evaluated.split, result.evaluated.total) == ("test", 60)
    assert evaluate(tmp_path / "run") == result.evaluated


def test_a_folder_without_splits_trains_and_is_scored_on_held_out_examples(
    tmp_path: Path,
) -> None:
    images, labels = images_of(300, 16, 16, 3)
    write_pictures(tmp_path / "set", images, labels)
    heard: list[Event] = []
    config = dataclasses.replace(
        presets.quick(), data=str(tmp_path / "set"), steps=40, batch_size=30, summary_every=0
    )
    result = training.train(config, run_dir=tmp_path / "run", emit=heard.append)
    assert any(isinstance(e, Noted) and "30 of its examples are held out" in e.text for e in heard)
    assert result.evaluated is not None
    assert (result.evaluated.split, result.evaluated.total) == ("validation", 30)
    assert result.evaluated.accuracy == 1.0
    assert evaluate(tmp_path / "run", "validation") == result.evaluated


def test_the_held_out_split_follows_its_seed_and_choice(cifar10_test: Arrays) -> None:
    def held(**settings: object) -> bytes:
        found = load_dataset("synthetic", "validation", validation_size=100, **settings)  # type: ignore[arg-type]
        assert len(found) == 100
        return found.images.tobytes()

    assert held() == held(validation_seed=0) != held(validation_seed=1)
    first = load_dataset("synthetic", "train").images[:100].tobytes()
    assert held(validation_choice="first") == first


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    # sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=labels)
    expected = [0.47619047619047616, 1.3333333333333333, 6.666666666666667]
    weights = objective.balanced_weights(np.bincount(labels, minlength=4)[:3])
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert objective.balanced_weights(np.array([2, 0]))[1] == 0


def test_weighted_loss_is_the_mean_over_examples_of_torchs() -> None:
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 0])
    weights = torch.tensor([0.5, 1.5, 4.0])
    found = objective.losses(nn.Identity(), logits, labels, class_weights=weights)
    expected = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / 9
    torch.testing.assert_close(found["cross_entropy"], expected)


def test_balanced_weights_help_the_rare_class(tmp_path: Path) -> None:
    """Nine in ten are of one class; the other one differs little, under much noise."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 1500), ("test", 600)):
        labels = (np.arange(count) % 10 == 0).astype(np.int64)
        images = rng.integers(0, 200, (count, 12, 12, 1))
        images[:, :3] += (labels * 25)[:, None, None, None]
        np.savez(tmp_path / f"{split}.npz", images=images.astype(np.uint8), labels=labels)
    test = load_dataset(tmp_path, "test")
    recall = {}
    for weights in ("none", "balanced"):
        config = dataclasses.replace(
            presets.mnist(),
            data=str(tmp_path),
            validation_size=0,
            evaluate_on=("test",),
            steps=200,
            class_weights=weights,
            summary_every=0,
        )
        heard: list[Event] = []
        training.train(config, run_dir=tmp_path / weights, emit=heard.append)
        recall[weights] = recall_of_rare(tmp_path / weights, test)
    assert recall["balanced"] > recall["none"] + 0.3, recall


def recall_of_rare(run: Path, test: Arrays) -> float:
    from deepcnn.inference.evaluation import load_model, read_inputs
    from deepcnn.runs import checkpoint
    from deepcnn.runs.run import Run

    opened = Run.open(run)
    inputs, classes = read_inputs(opened)
    newest = checkpoint.paths(opened.checkpoints)[-1]
    model, _, _ = load_model(opened.config(), inputs, len(classes), newest, averaged=False)
    rare = test.select(test.labels == 1)
    with torch.no_grad():
        answers = model(inputs.evaluate(torch.from_numpy(rare.images))).argmax(1)
    return float((answers == 1).float().mean())


def test_fashion_mnist_needs_no_download(tmp_path: Path) -> None:
    """Debian's dataset-fashion-mnist is installed where the tests run."""
    train = load_dataset("fashion_mnist", "train", data_dir=tmp_path)
    test = load_dataset("fashion_mnist", "test", data_dir=tmp_path)
    assert train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.classes[9] == "Ankle boot"
    assert train.labels[:3].tolist() == [9, 0, 0]
    assert set(datasets.verify("fashion_mnist", data_dir=tmp_path).values()) == {None}


def test_the_mnist_program_on_real_data(tmp_path: Path) -> None:
    fetched = datasets.fetch("fashion_mnist", data_dir=tmp_path)
    config = dataclasses.replace(
        presets.mnist(), data="fashion_mnist", data_dir=str(fetched.parent), steps=600
    )
    assert (config.model.widths, config.batch_size) == ((128, 32), 100)
    result = training.train(config, run_dir=tmp_path / "run")
    assert [(s.split, s.total) for s in result.scores] == [
        ("train", 55_000),
        ("validation", 5_000),
        ("test", 10_000),
    ]
    assert 0.68 < result.scores[2].accuracy < 0.78  # 2,000 steps give about 0.80


def test_all_names_open_from_files_of_their_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins with the sizes and hashes of their own show that every name's reader is right."""
    rgb, labels = images_of(12, 32, 32, 3)
    gray, _ = images_of(12, 28, 28, 1)
    ten = np.frombuffer(cifar.encode(rgb, labels), np.uint8).reshape(12, -1)
    hundred = np.concatenate([(labels + 7).astype(np.uint8)[:, None], ten], 1).tobytes()
    mat = tmp_path / "x.mat"
    digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(mat, {"X": rgb.transpose(1, 2, 3, 0), "y": digits}, do_compression=True)
    contents = {
        "bin": hundred,
        "mat": mat.read_bytes(),
        "images": idx.encode_images(gray),
        "labels": idx.encode_labels(labels),
    }

    def content_of(name: str) -> bytes:
        (found,) = [content for key, content in contents.items() if key in name]
        return found

    for name in ("cifar100", "cifar100_coarse", "mnist", "fashion_mnist", "svhn"):
        dataset = catalog.DATASETS[name]

        def describe(file: catalog.File) -> catalog.File:
            content = content_of(file.name)
            return catalog.File(file.name, len(content), hashlib.sha256(content).hexdigest())

        stand_in = dataclasses.replace(
            dataset,
            train=tuple(map(describe, dataset.train)),
            test=tuple(map(describe, dataset.test)),
        )
        monkeypatch.setitem(catalog.DATASETS, name, stand_in)
        folder = tmp_path / dataset.folder
        folder.mkdir(exist_ok=True)
        for file in dataset.files:
            (folder / file.name).write_bytes(content_of(file.name))
        found = load_dataset(name, "test", data_dir=tmp_path)
        expected = labels + 7 if name == "cifar100_coarse" else labels
        equal(found, gray if "mnist" in name else rgb, expected)
        assert len(found.classes) == {"cifar100": 100, "cifar100_coarse": 20}.get(name, 10)


def test_sources_of_different_shapes_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "train-1.tfrecords").write_bytes(tfrecord.encode(*images_of(3, 4, 4, 1)))
    (tmp_path / "train-2.tfrecords").write_bytes(tfrecord.encode(*images_of(3, 4, 5, 1)))
    with pytest.raises(DataError, match=r"train-2\.tfrecords: expected images of 4×4×1 .*4×5×1"):
        open_dataset(tmp_path, "train")
    assert layouts.find(tmp_path, emit=ignore).form == "TFRecord"


def test_a_set_larger_than_memory_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = images_of(30, 40, 40, 3)
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    source = open_dataset(tmp_path, "train")
    assert len(source.load()) == 30
    pages = {"SC_PHYS_PAGES": 40, "SC_PAGE_SIZE": 4096}  # 164 kB, and the images take 144
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    with pytest.raises(DataError, match=r"0\.0 GB of images\. .*--feed streamed"):
        source.load()


def test_a_sheet_of_many_classes_with_hostile_names(tmp_path: Path) -> None:
    images, labels = images_of(900, 6, 9, 2, classes=300)
    names = tuple(f"\x1b[31m{i}\n" for i in range(300))
    arrays = Arrays(images, labels, names)
    heard: list[tuple[int, int]] = []
    found = contact_sheet.survey(in_memory(arrays), lambda done, total: heard.append((done, total)))
    assert heard[-1] == (900, 900)
    assert found.counts.tolist() == [3] * 300
    assert [len(some) for some in found.images] == [3] * 200
    assert np.array_equal(found.images[7][1], images[307])
    sheet = contact_sheet.draw(found)
    assert sheet.size == (150 + 12 * (63 + 4) + 4, 200 * (42 + 4) + 4)
    assert listings.shown(names[0]) == r"'\x1b[31m0\n'"
