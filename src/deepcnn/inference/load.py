"""Opening a trained network to ask it about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepcnn.errors import RunError
from deepcnn.inference.classifier import Classifier

if TYPE_CHECKING:
    from deepcnn.devices import Precision
    from deepcnn.models.build import Given


def load(
    run: str | Path,
    *,
    step: int | None = None,
    averaged: bool = True,
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    model: Given | None = None,
) -> Classifier:
    """Open the network of a run, to ask it about pictures.

    `step`: of the checkpoint, None: the newest; `averaged`: with the moving averages of the
    parameters, if the run keeps any; `device`, `precision`, `threads`: where and how to compute;
    "bf16" is faster and less exact; `model`: the network again, where it is none of this package.
    Raises a DeepcnnError that says what is missing or does not fit.
    """
    path = Path(run)
    if not path.exists():
        raise RunError(f"{path}: there is no such run")
    from deepcnn.devices import Place, use_threads
    from deepcnn.hardware import keep_freed_memory
    from deepcnn.inference.trained import Trained, checkpoint_of
    from deepcnn.runs.run import Run

    use_threads(threads)
    keep_freed_memory()
    opened = Run.open(path)
    found = checkpoint_of(opened, step)
    trained = Trained.load(opened, found, averaged=averaged, model=model)
    return trained.classifier(Place.choose(device, precision))
