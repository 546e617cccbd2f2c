"""From a data set to the batches for a network; `Stream` and `Fed` are for feeding your own."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepcnn.inputs.fed import Fed
    from deepcnn.inputs.stream import HostBatch, Stream

__all__ = ["Fed", "HostBatch", "Stream"]

# Where each public name lives; they are imported when first used.
_HOMES = {
    "Fed": "deepcnn.inputs.fed",
    "HostBatch": "deepcnn.inputs.stream",
    "Stream": "deepcnn.inputs.stream",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
