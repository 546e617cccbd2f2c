"""Presets: functions without arguments that return whole configurations for `train`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from deepcnn.config import Config
from deepcnn.settings import ModelConfig, OptimizerConfig, TransformConfig


def quick() -> Config:
    """CIFAR-10 to more than 86 % on two processor cores, in 25 to 45 seconds."""
    return Config(
        preset="quick",
        data="cifar10",
        model=ModelConfig("speednet", widths=(32, 96, 128)),
        inputs=TransformConfig(
            pad=1,
            flip="alternate",
            standardize="dataset",
            scales=((0.0, 0.5), (0.3, 0.75), (0.65, 1.0)),
        ),
        optimizer=OptimizerConfig(
            learning_rate=20.0,
            head_learning_rate=250.0,
            momentum=0.85,
            weight_decay=0.001,
            schedule="linear",
            muon_learning_rate=0.18,
            muon_momentum=0.6,
            freeze=(("stem", 0.15), ("group1", 0.8)),
        ),
        steps=290,
        batch_size=500,
        label_smoothing=0.2,
        average_decay=None,
        log_every=10,
        save_every=100,
    )


def speedrun94() -> Config:
    """CIFAR-10 to 94 % in 6.5 minutes (bf16) on two processor cores, over two to six views."""
    preset = quick()
    return replace(
        preset,
        preset="speedrun94",
        model=ModelConfig("speednet", widths=(64, 256, 256)),
        inputs=replace(preset.inputs, pad=2, views="unsure"),
        optimizer=replace(
            preset.optimizer,
            weight_decay=0.0005,
            muon_learning_rate=0.15,
            freeze=(("stem", 0.3), ("group1", 0.8)),
        ),
        steps=1600,
        summary_every=200,
        save_every=200,
    )


def speedrun94_gpu() -> Config:
    """CIFAR-10 to 94 % in little more than a second (H200, bf16), over two to six views."""
    preset = speedrun94()
    return replace(
        preset,
        preset="speedrun94_gpu",
        inputs=replace(preset.inputs, scales=((0.0, 0.5), (0.2, 0.75), (0.5, 1.0))),
        optimizer=replace(
            preset.optimizer,
            learning_rate=45.0,
            head_learning_rate=480.0,
            momentum=0.8,
            weight_decay=0.001,
            muon_learning_rate=0.16,
            freeze=(("stem", 0.2),),
        ),
        steps=470,
        batch_size=1000,
        log_every=100,
        summary_every=0,
        save_every=470,
    )


def speedrun96() -> Config:
    """CIFAR-10 towards 96 %: 95.8 % in 47 minutes (bf16, two seeds) on two processor cores."""
    preset = speedrun94()
    return replace(
        preset,
        preset="speedrun96",
        model=ModelConfig("residual_speednet", widths=(128, 384, 512)),
        inputs=replace(preset.inputs, pad=4, cutout=12),
        steps=4000,
    )


def fashion() -> Config:
    """Fashion-MNIST to 93.5 % in less than two minutes on two cores, over two to six views."""
    preset = quick()
    return replace(
        preset,
        preset="fashion",
        data="fashion_mnist",
        model=ModelConfig("speednet", widths=(24, 64, 192)),
        inputs=replace(preset.inputs, views="unsure"),
        optimizer=replace(
            preset.optimizer,
            learning_rate=14.0,
            head_learning_rate=177.0,
            weight_decay=0.0005,
            muon_learning_rate=0.11,
        ),
        steps=1400,
        batch_size=250,
        save_every=500,
    )


def svhn() -> Config:
    """SVHN's cropped digits, without mirroring; not yet tried on the real digits."""
    preset = fashion()
    return replace(
        preset,
        preset="svhn",
        data="svhn",
        model=ModelConfig("speednet", widths=(32, 96, 192)),
        inputs=replace(preset.inputs, pad=2, flip="none", views="one"),
        steps=1760,
    )


def tutorial() -> Config:
    """TensorFlow's CIFAR-10 tutorial, number for number: 86 % after 100,000 steps."""
    return Config(
        preset="tutorial",
        data="cifar10",
        model=ModelConfig("tutorial", widths=(64, 64, 384, 192)),
        inputs=TransformConfig(crop=0.75, flip="random", contrast=(0.2, 1.8), standardize="image"),
        optimizer=OptimizerConfig(learning_rate=0.1, schedule="staircase"),
        steps=100_000,
        batch_size=128,
        order="queue",
    )


def cuda_convnet() -> Config:
    """cuda-convnet's locally connected layers; published: 89 % over ten views, 87 % over one."""
    epochs, rate = 470, 0.001
    return Config(
        preset="cuda_convnet",
        data="cifar10",
        model=ModelConfig("cuda_convnet", widths=(64, 64, 32, 32)),
        inputs=TransformConfig(crop=0.75, flip="random", standardize="mean_image", views="ten"),
        optimizer=OptimizerConfig(
            learning_rate=rate,
            bias_learning_rate=2 * rate,
            momentum=0.9,
            nesterov=False,
            weight_decay=0.004 * rate,  # of three layers, and of no bias
            decayed=("local3.weight", "local4.weight", "fc10.weight"),
            drops=(450 / epochs, 460 / epochs),
        ),
        steps=math.ceil(epochs * 50_000 / 128),
        batch_size=128,
        average_decay=None,
        log_every=100,
        summary_every=1000,
        save_every=5000,
    )


def mnist() -> Config:
    """TensorFlow's MNIST program that feeds a fully connected network from Python."""
    return Config(
        preset="mnist",
        data="mnist",
        model=ModelConfig("mlp", widths=(128, 32)),
        inputs=TransformConfig(flip="none", standardize="unit"),
        optimizer=OptimizerConfig(learning_rate=0.01),
        steps=2000,
        batch_size=100,
        average_decay=None,
        validation_size=5000,
        validation_choice="first",
        evaluate_on=("train", "validation", "test"),
        feed="fed",
        log_every=100,
        save_every=1000,
        evaluate_every=1000,
    )


def tiny() -> Config:
    """Learn synthetic patterns in a few seconds, with every part of the tutorial; for tests."""
    return Config(
        preset="tiny",
        data="synthetic",
        model=ModelConfig("tutorial", widths=(16, 16, 64, 64)),
        inputs=TransformConfig(crop=0.75, flip="random", contrast=(0.2, 1.8), standardize="image"),
        optimizer=OptimizerConfig(learning_rate=0.02, momentum=0.9, schedule="staircase"),
        steps=200,
        batch_size=32,
        save_every=50,
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "quick": quick,
    "speedrun94": speedrun94,
    "speedrun94_gpu": speedrun94_gpu,
    "speedrun96": speedrun96,
    "fashion": fashion,
    "svhn": svhn,
    "tutorial": tutorial,
    "cuda_convnet": cuda_convnet,
    "mnist": mnist,
    "tiny": tiny,
}
DEFAULT = "quick"
