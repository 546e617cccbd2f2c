"""Trains other programs on a folder of pictures, from scratch, for so many processor seconds.

    python small_sets.py PEER-CONFIGURATION FOLDER [--seconds 60] [--seed 0]

FOLDER has train/, val/ and test/, each with a folder for each class. Each program is used as its
documentation shows it for a folder of pictures, without pretrained weights, once at a small size
and once at a larger one; how many epochs fit is found by a first epoch that does not count. The
last line of the output, JSON, tells how many test pictures are right.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

Trained = TypeVar("Trained")

try:
    import torchvision  # noqa: F401
except RuntimeError:  # its compiled part is made for another torch, and two operators are missing
    OPERATORS = torch.library.Library("torchvision", "DEF")  # which no classifier needs
    for name in ("nms", "qnms"):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def fastai(folder: Path, seconds: float, seed: int, size: int, network: str) -> tuple[int, int]:
    """Train with fastai: one cycle, its usual augmentation; return the right answers and epochs."""
    from fastai.vision import all as fast
    from torchvision.models import resnet18

    def learner() -> fast.Learner:
        fast.set_seed(seed, reproducible=True)
        data = fast.ImageDataLoaders.from_folder(
            folder,
            train="train",
            valid="val",
            seed=seed,
            item_tfms=fast.Resize(size),
            batch_tfms=fast.aug_transforms(),
            bs=64,
            num_workers=0,
            device=torch.device("cpu"),
        )
        if network == "xresnet18":
            return fast.Learner(data, fast.xresnet18(n_out=data.c), metrics=fast.accuracy)
        return fast.vision_learner(data, resnet18, pretrained=False, metrics=fast.accuracy)

    def train(epochs: int) -> fast.Learner:
        made = learner()
        with made.no_logging(), made.no_bar():
            made.fit_one_cycle(epochs, 3e-3)
        return made

    trained, epochs = for_seconds(train, seconds)
    files = fast.get_image_files(folder / "test")
    with trained.no_bar():
        answers = trained.get_preds(dl=trained.dls.test_dl(files))[0].argmax(1)
    names = [trained.dls.vocab[int(k)] for k in answers]
    return sum(n == f.parent.name for n, f in zip(names, files, strict=True)), epochs


def timm(folder: Path, seconds: float, seed: int, size: int, network: str) -> tuple[int, int]:
    """Train a network of timm with its data pipeline, AdamW and a cosine."""
    import timm as library
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from torch import nn

    def loader(split: str, training: bool):
        dataset = create_dataset("", str(folder / split))
        return create_loader(
            dataset,
            input_size=(3, size, size),
            batch_size=min(64, len(dataset)),  # a smaller last one is left out in training
            is_training=training,
            use_prefetcher=False,
            num_workers=0,
            device=torch.device("cpu"),
            crop_pct=1.0,
            persistent_workers=False,
        )

    def train(epochs: int) -> nn.Module:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 (what timm draws from)
        batches = loader("train", training=True)
        classes = len(list((folder / "train").iterdir()))
        model = library.create_model(network, num_classes=classes)
        optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1e-3, total_steps=epochs * len(batches), pct_start=0.1
        )
        model.train()
        for _ in range(epochs):
            for images, labels in batches:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
                optimizer.step()
                schedule.step()
        return model.eval()

    trained, epochs = for_seconds(train, seconds)
    with torch.no_grad():
        scored = [
            int((trained(images).argmax(1) == labels).sum())
            for images, labels in loader("test", training=False)
        ]
    return sum(scored), epochs


def ultralytics(folder: Path, seconds: float, seed: int, size: int, network: str):
    """Train a network of Ultralytics by its own trainer, from its description."""
    from ultralytics import YOLO

    def train(epochs: int) -> YOLO:
        model = YOLO(f"{network}.yaml")
        model.train(
            data=str(folder),
            epochs=epochs,
            imgsz=size,
            batch=64,
            pretrained=False,
            device="cpu",
            workers=0,
            seed=seed,
            plots=False,
            verbose=False,
            project=tempfile.mkdtemp(),
        )
        return model

    trained, epochs = for_seconds(train, seconds)
    files = sorted((folder / "test").glob("*/*"))
    right = 0
    for file in files:
        found = trained.predict(str(file), imgsz=size, verbose=False)[0]
        right += found.names[found.probs.top1] == file.parent.name
    return right, epochs


def for_seconds(train: Callable[[int], Trained], seconds: float) -> tuple[Trained, int]:
    """Train for as many epochs as fit into so many processor seconds, at least one."""
    times = []
    for epochs in (1, 2):  # what the second one takes is without the start
        began = time.process_time()
        train(epochs)
        times.append(time.process_time() - began)
    epochs = max(1, int(seconds / max(times[1] - times[0], 1e-3)))
    return train(epochs), epochs


CONFIGURATIONS = {
    "fastai-xresnet18-64": (fastai, 64, "xresnet18"),
    "fastai-resnet18-128": (fastai, 128, "resnet18"),
    "timm-resnet18-64": (timm, 64, "resnet18"),
    "timm-mobilenetv3-128": (timm, 128, "mobilenetv3_small_100"),
    "ultralytics-yolo11n-64": (ultralytics, 64, "yolo11n-cls"),
    "ultralytics-yolo11n-128": (ultralytics, 128, "yolo11n-cls"),
}


def main() -> None:
    """Read the command line, train, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configuration", choices=CONFIGURATIONS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    train, size, network = CONFIGURATIONS[given.configuration]
    right, epochs = train(given.folder, given.seconds, given.seed, size, network)
    told = {"right": right, "of": len(list((given.folder / "test").glob("*/*"))), "epochs": epochs}
    print(json.dumps(vars(given) | {"folder": given.folder.name} | told))


if __name__ == "__main__":
    main()
