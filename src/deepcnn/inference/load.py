"""Opening a trained network to ask it about pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepcnn.errors import ConfigError, RunError
from deepcnn.events import Listener, ignore
from deepcnn.inference.classifier import Classifier
from deepcnn.inference.runtimes import OnnxRuntime

if TYPE_CHECKING:
    from deepcnn.devices import Place, Precision
    from deepcnn.inference.trained import Trained
    from deepcnn.models.build import Given

ONNX, WEIGHTS = ".onnx", ".safetensors"  # how the names of files that can be opened end

Runtime = Literal["auto", "torch"] | OnnxRuntime


def load(
    run: str | Path,
    *,
    step: int | None = None,
    averaged: bool = True,
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    runtime: Runtime = "auto",
    model: Given | None = None,
    emit: Listener = ignore,
) -> Classifier:
    """Open the network of a run, or of a file that was exported from one, to ask about pictures.

    `run`: its directory, or a file .onnx or .safetensors of `deepcnn export`. A file holds one
    step, with the averages or without. `step`: of the checkpoint; None: the newest whole one.
    `averaged`: use the moving averages of the parameters, if the run keeps any.

    `device`, `precision`, `threads`: where and how to compute; "bf16" is faster and less exact.
    `runtime`: what computes. "auto" is torch for a run and for weights. For ONNX, which needs no
    torch, it is the faster one of ONNX Runtime and OpenVINO, as far as they are installed (see
    `runtimes`).

    `model`: the network again, if it is not one of this package. `emit` hears which damaged
    checkpoints are skipped. Raises a DeepcnnError that says what is missing or does not fit.
    """
    path = Path(run)
    if is_onnx(path):
        _check_step(path, step, averaged)
        return _open_onnx(path, device, precision, threads, runtime)
    if path.exists() and runtime not in ("auto", "torch"):
        raise ConfigError(
            f"runtime: torch computes what {path} holds. {runtime} reads ONNX: deepcnn export RUN "
            "--to onnx"
        )
    trained, place = open_trained(
        path,
        step=step,
        averaged=averaged,
        device=device,
        precision=precision,
        threads=threads,
        model=model,
        emit=emit,
    )
    return trained.classifier(place)


def open_trained(
    run: str | Path,
    *,
    step: int | None = None,
    averaged: bool = True,
    device: str = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    model: Given | None = None,
    emit: Listener = ignore,
) -> tuple[Trained, Place]:
    """Open the network of a run or of a file of weights, and the place where it is to compute.

    For the arguments and the errors see `load`. The network is still on the processor.
    """
    path = Path(run)
    if not path.exists():
        raise RunError(f"{path}: there is no such run")
    if path.is_file():
        _check_step(path, step, averaged)
    from deepcnn.devices import Place, use_threads
    from deepcnn.hardware import keep_freed_memory
    from deepcnn.inference.trained import Trained
    from deepcnn.runs.run import Run

    use_threads(threads)
    keep_freed_memory()
    place = Place.choose(device, precision)
    if path.suffix == WEIGHTS and path.is_file():
        from deepcnn.inference.weights import trained_of

        return trained_of(path, model), place
    opened = Run.open(path)
    return Trained.open(opened, step, averaged=averaged, model=model, emit=emit), place


def is_onnx(path: Path) -> bool:
    """Tell by a path's name whether it is a network in an ONNX file."""
    return path.suffix == ONNX and path.is_file()


def is_file_of_network(path: Path) -> bool:
    """Tell by a path's name whether it is a file that `load` opens."""
    return path.suffix in (ONNX, WEIGHTS) and path.is_file()


def _check_step(path: Path, step: int | None, averaged: bool) -> None:
    if step is not None or not averaged:
        raise ConfigError(
            f"{path}: a file holds the network of one step; leave out step and averaged"
        )


def _open_onnx(
    path: Path, device: str, precision: str, threads: int | None, runtime: Runtime
) -> Classifier:
    from deepcnn.inference.onnx_file import open_onnx

    if runtime == "torch":
        raise ConfigError(
            f"runtime: torch does not read {path}; expected onnxruntime, openvino or auto"
        )
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device: {path} is computed on the processor, found {device!r}")
    return open_onnx(path, runtime, precision=precision, threads=threads)
