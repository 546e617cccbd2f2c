"""Trains small-image classifiers: all that the classic CIFAR-10 tutorial did, and much more."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepcnn import presets
    from deepcnn.config import Config
    from deepcnn.data.open import load_dataset, open_dataset
    from deepcnn.exports import export
    from deepcnn.inference.evaluation import evaluate
    from deepcnn.inference.load import load
    from deepcnn.models.build import build_model
    from deepcnn.models.network import Network
    from deepcnn.settings import DataSpec
    from deepcnn.training.start import resume, train

__version__ = "0.2.0"
__all__ = [
    "Config",
    "DataSpec",
    "Network",
    "build_model",
    "evaluate",
    "export",
    "load",
    "load_dataset",
    "open_dataset",
    "presets",
    "resume",
    "train",
]

# Where each public name lives. They are imported when first used, so that `import deepcnn` and
# `deepcnn --help` do not wait for torch. No module bears the name of a function in this table:
# importing it would hide the function.
_HOMES = {
    "Config": "deepcnn.config",
    "DataSpec": "deepcnn.settings",
    "Network": "deepcnn.models.network",
    "build_model": "deepcnn.models.build",
    "evaluate": "deepcnn.inference.evaluation",
    "export": "deepcnn.exports",
    "load": "deepcnn.inference.load",
    "load_dataset": "deepcnn.data.open",
    "open_dataset": "deepcnn.data.open",
    "resume": "deepcnn.training.start",
    "train": "deepcnn.training.start",
}


def __getattr__(name: str) -> Any:
    if name == "presets":
        return importlib.import_module("deepcnn.presets")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
