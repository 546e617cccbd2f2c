"""Networks as ONNX files, and weights in files, which are proved before they appear."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import deepcnn
from deepcnn import atomic
from deepcnn.data.splits import Split
from deepcnn.devices import Place
from deepcnn.errors import CheckpointError, DataError, DeepcnnError, ExportError, storing
from deepcnn.events import Listener
from deepcnn.inference import proof
from deepcnn.inference.about import About, Accuracy, settings_of
from deepcnn.inference.answered import Answered
from deepcnn.inference.answers import NumpyAnswers
from deepcnn.inference.evaluation import Scorer
from deepcnn.inference.extras import needed
from deepcnn.inference.onnx_file import ByOnnxRuntime
from deepcnn.inference.onnx_graph import to_onnx
from deepcnn.inference.trained import Trained, checkpoint_of
from deepcnn.inference.weights import read_weights, to_safetensors
from deepcnn.models.build import Given
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn

RECORD, VECTORS = "export.json", "vectors.npz"  # beside the file


@dataclass(frozen=True)
class Exported:
    """A file that was written; `record`: what is told about it, in a form for JSON."""

    path: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What to export, and from where; see `deepcnn.export`."""

    run: Run
    out: Path
    step: int | None
    averaged: bool
    model: Given | None
    device: str
    threads: int | None
    data: str | Path | None
    data_dir: str | Path | None
    emit: Listener


def export_onnx(wanted: Wanted) -> Exported:
    """Write an ONNX file, with the record of its proof and vectors beside it."""
    runtime = needed("onnxruntime", "export")
    scorer = _scorer(wanted)
    trained, answered = scorer.answered(wanted.step)
    counts = np.bincount(answered.labels, minlength=len(trained.trained_on.classes))
    trained.trained_on.check(str(wanted.data), answered.split, scorer.source, counts)
    accuracy = Accuracy(answered.split, answered.correct, len(answered))
    content = to_onnx(trained, about_of(trained, accuracy))
    place = Place.choose(wanted.device, "fp32")
    network = ByOnnxRuntime(content, threads=torch.get_num_threads())
    found = proof.prove(network, scorer.source, answered, lambda: trained.answers(place))
    if not found.holds:
        raise ExportError(
            f"{wanted.out}: not written. Of {found.examples:,} {answered.split} images ONNX "
            f"Runtime answers {found.differing:,} otherwise than the run, with another label for "
            f"{found.labels:,}: a probability differs by up to {found.largest:.2g}, where at most "
            f"{proof.MOST_APART:g} may be."
        )
    many = scorer.source.first_images(proof.MANY)
    ours = NumpyAnswers(trained.answers(place))
    record = {
        **record_of(wanted, "onnx", trained, len(content)),
        "split": answered.split,
        "examples": found.examples,
        "correct": {"run": answered.correct, "onnxruntime": found.correct},
        "accuracy": {
            "run": answered.correct / found.examples,
            "onnxruntime": found.correct / found.examples,
        },
        "largest_difference": found.largest,
        "allowed_difference": proof.MOST_APART,
        "at_margin": found.at_margin,
        "milliseconds": {
            name: {
                "images": len(images),
                "run": proof.milliseconds(ours.logits, images),
                "onnxruntime": proof.milliseconds(network.logits, images),
            }
            for name, images in (("one", many[:1]), ("many", many))
        },
        "device": str(place.device),
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "onnxruntime": runtime.__version__},
    }
    with writing(wanted.out):
        _write_vectors(wanted.out.with_name(VECTORS), answered, found)
        atomic.write(wanted.out.with_name(RECORD), (json.dumps(record, indent=2) + "\n").encode())
        atomic.write(wanted.out, content)  # last: what is there was proved
    return Exported(wanted.out, record)


def export_safetensors(wanted: Wanted) -> Exported:
    """Write a file of weights; it is read back and compared bit for bit."""
    run = wanted.run
    trained = opened(wanted)
    about = about_of(trained, _logged_accuracy(run, trained))
    content = to_safetensors(trained, about)
    with TemporaryDirectory() as folder:
        unproved = Path(folder) / wanted.out.name
        with storing(unproved):
            unproved.write_bytes(content)
        _, weights = read_weights(unproved)
    expected = trained.model.state_dict()
    if weights.keys() != expected.keys() or not all(
        torch.equal(weights[name], expected[name].cpu()) for name in expected
    ):
        raise ExportError(f"{wanted.out}: not written, since other weights were read back")
    with writing(wanted.out):
        atomic.write(wanted.out, content)
    record = record_of(wanted, "safetensors", trained, len(content))
    return Exported(wanted.out, {**record, "tensors": len(weights)})


def opened(wanted: Wanted) -> Trained:
    """Return the network to export."""
    return Trained.open(
        wanted.run,
        wanted.step,
        averaged=wanted.averaged,
        model=wanted.model,
        emit=wanted.emit,
    )


def _scorer(wanted: Wanted) -> Scorer:
    try:
        return Scorer(
            wanted.run.path,
            None if wanted.data is None else _split_that_counts(wanted.run),
            averaged=wanted.averaged,
            device=wanted.device,
            threads=wanted.threads,
            data=wanted.data,
            data_dir=wanted.data_dir,
            model=wanted.model,
            emit=wanted.emit,
        )
    except DataError as error:
        raise DataError(
            f"{error} (An export is compared with the run on the images that the run was scored "
            "on: say by --data where they lie.)"
        ) from error


def _split_that_counts(run: Run) -> Split | None:
    """Return the split that a run was scored on; None if it does not say."""
    scored = run.config().evaluate_on or [s for s in TrainedOn.read(run).counts if s != "train"]
    return scored[-1] if scored else None  # type: ignore[return-value]  # a split's name


def about_of(trained: Trained, accuracy: Accuracy | None) -> About:
    """Return what a file says about a network."""
    on = trained.trained_on
    return About(
        classes=on.classes,
        image_shape=on.transform.image_shape,
        step=trained.step,
        averaged=trained.averaged,
        calibration=trained.calibration,
        accuracy=accuracy,
        inputs=on.transform.to_dict(),
        settings=settings_of(trained.config),
    )


def record_of(wanted: Wanted, form: str, trained: Trained, size: int) -> dict[str, Any]:
    """Return what is told about every file; `size`: its bytes."""
    size_before = None
    with suppress(OSError, CheckpointError):  # a training may have removed it meanwhile
        size_before = checkpoint_of(wanted.run, trained.step).stat().st_size
    return {
        "deepcnn": deepcnn.__version__,
        "form": form,
        "file": wanted.out.name,
        "run": wanted.run.path.resolve().name,
        "step": trained.step,
        "averaged": trained.averaged,
        "bytes": size,
        "checkpoint_bytes": size_before,
    }


def _logged_accuracy(run: Run, trained: Trained) -> Accuracy | None:
    """Return the last score of a checkpoint in the run's log, or None."""
    found: list[dict[str, Any]] = []
    with suppress(DeepcnnError):  # no log, or a damaged one
        found = events(read_log(run.log), "Evaluated")
    for score in reversed(found):
        if (score.get("step"), score.get("averaged")) == (trained.step, trained.averaged):
            return Accuracy(score["split"], score["correct"], score["total"])
    return None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a file; turn errors of the system into an ExportError."""
    try:
        atomic.make_directory(path.parent)
        yield
    except OSError as error:
        raise ExportError(
            f"{path}: cannot be written ({error.strerror or error}). Free space, or choose another "
            "--out."
        ) from error


def _write_vectors(path: Path, answered: Answered, found: proof.Proof) -> None:
    """Write some images with the run's answers, to compare with those of other programs."""
    logits = answered.logits[found.vector_places]
    calibration = answered.calibration
    doubts = calibration.doubts(found.vectors, logits) if calibration else [None] * len(logits)
    with atomic.writing(path) as file:
        np.savez(
            file,
            images=found.vectors,
            logits=logits,
            probabilities=answered.probabilities()[found.vector_places],
            unsure=np.array([doubt or "" for doubt in doubts]),
            index=found.vector_places,
        )
