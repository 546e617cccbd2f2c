"""A trained network as a file that does without its run, proved before it appears."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

import deepcnn
from deepcnn import atomic
from deepcnn.data.splits import Split
from deepcnn.devices import Place
from deepcnn.errors import CheckpointError, ConfigError, DataError, DeepcnnError, ExportError
from deepcnn.events import Listener, ignore
from deepcnn.inference import proof
from deepcnn.inference.about import About, Accuracy, settings_of
from deepcnn.inference.answered import Answered
from deepcnn.inference.answers import NumpyAnswers
from deepcnn.inference.evaluation import Scorer
from deepcnn.inference.extras import needed
from deepcnn.inference.load import ONNX, WEIGHTS
from deepcnn.inference.onnx_file import ByOnnxRuntime
from deepcnn.inference.onnx_graph import to_onnx
from deepcnn.inference.trained import Trained, checkpoint_of
from deepcnn.inference.weights import read_weights, to_safetensors
from deepcnn.models.build import Given
from deepcnn.runs.log import events, read_log
from deepcnn.runs.run import Run
from deepcnn.runs.trained_on import TrainedOn

FOLDER, NAME = "export", "model"  # below the run, where no file is named
RECORD, VECTORS = "export.json", "vectors.npz"  # beside the file


@dataclass(frozen=True)
class Exported:
    """A file that was written; `record`: what is told of it, fit for JSON."""

    path: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What is to be exported, from where; see `export`."""

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


class Form(NamedTuple):
    """A form of file: how its name ends, and what writes it."""

    suffix: str
    write: Callable[[Wanted], Exported]


def export(
    run: str | Path,
    to: str = "onnx",
    *,
    out: str | Path | None = None,
    step: int | None = None,
    averaged: bool = True,
    model: Given | None = None,
    device: str = "auto",
    threads: int | None = None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Exported:
    """Write the network of a run as a file, which appears whole, or not at all.

    `to`: a form of `FORMS`; `out`: the file, None: `export/model` with the form's ending in the
    run; `step`: of the checkpoint, None: the newest; `averaged`: with the moving averages of the
    parameters, if the run keeps any; `model`: the network again, where it is none of this package;
    `device`, `threads`: where the run's own answers are computed; `data`, `data_dir`: where its
    images lie now. An ONNX file is compared with the run on every image that the run was scored on,
    so these must be there. Raises ExportError where an answer differs, and then writes nothing;
    another DeepcnnError for what is missing or does not fit.
    """
    if to not in FORMS:
        raise ConfigError(f"to: expected one of {', '.join(FORMS)}, found {to!r}")
    form = FORMS[to]
    opened = Run.open(Path(run))
    path = opened.path / FOLDER / (NAME + form.suffix) if out is None else Path(out)
    if path.suffix != form.suffix:
        raise ConfigError(
            f"out: expected a name that ends in {form.suffix}, by which the file is known, found "
            f"{str(path)!r}"
        )
    if path.is_dir():
        raise ConfigError(f"out: expected a file, found the folder {path}")
    wanted = Wanted(
        run=opened,
        out=path,
        step=step,
        averaged=averaged,
        model=model,
        device=device,
        threads=threads,
        data=data,
        data_dir=data_dir,
        emit=emit,
    )
    return form.write(wanted)


def export_onnx(wanted: Wanted) -> Exported:
    """Write an ONNX file, with the record of its proof and vectors beside it."""
    runtime = needed("onnxruntime", "export")
    scorer = _scorer(wanted)
    trained, answered = scorer.answered(wanted.step)
    counts = np.bincount(answered.labels, minlength=len(trained.trained_on.classes))
    trained.trained_on.check(str(wanted.data), answered.split, scorer.source, counts)
    accuracy = Accuracy(answered.split, answered.correct, len(answered))
    content = to_onnx(trained, _about(trained, accuracy))
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
        **_record(wanted, "onnx", trained, len(content)),
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
    with _writing(wanted.out):
        _write_vectors(wanted.out.with_name(VECTORS), answered, found)
        atomic.write(wanted.out.with_name(RECORD), (json.dumps(record, indent=2) + "\n").encode())
        atomic.write(wanted.out, content)  # last: what is there was proved
    return Exported(wanted.out, record)


def export_safetensors(wanted: Wanted) -> Exported:
    """Write a file of weights; what is read back from it is compared bit for bit."""
    run = wanted.run
    checkpoint = checkpoint_of(run, wanted.step)
    trained = Trained.load(run, checkpoint, averaged=wanted.averaged, model=wanted.model)
    about = _about(trained, _logged_accuracy(run, trained))
    content = to_safetensors(trained, about)
    with TemporaryDirectory() as folder:
        unproved = Path(folder) / wanted.out.name
        unproved.write_bytes(content)
        _, weights = read_weights(unproved)
    expected = trained.model.state_dict()
    if weights.keys() != expected.keys() or not all(
        torch.equal(weights[name], expected[name].cpu()) for name in expected
    ):
        raise ExportError(f"{wanted.out}: not written, since other weights were read back")
    with _writing(wanted.out):
        atomic.write(wanted.out, content)
    record = _record(wanted, "safetensors", trained, len(content))
    return Exported(wanted.out, {**record, "tensors": len(weights)})


FORMS: dict[str, Form] = {
    "onnx": Form(ONNX, export_onnx),
    "safetensors": Form(WEIGHTS, export_safetensors),
}


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
    """Return the split that a run was scored on; None where it does not say."""
    scored = run.config().evaluate_on or [s for s in TrainedOn.read(run).counts if s != "train"]
    return scored[-1] if scored else None  # type: ignore[return-value]  # a split's name


def _about(trained: Trained, accuracy: Accuracy | None) -> About:
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


def _record(wanted: Wanted, form: str, trained: Trained, size: int) -> dict[str, Any]:
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
    """Return the last score of a checkpoint that the run's log holds, or None."""
    found: list[dict[str, Any]] = []
    with suppress(DeepcnnError):  # no log, or a damaged one
        found = events(read_log(run.log), "Evaluated")
    for score in reversed(found):
        if (score.get("step"), score.get("averaged")) == (trained.step, trained.averaged):
            return Accuracy(score["split"], score["correct"], score["total"])
    return None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ExportError(
            f"{path}: cannot be written ({error.strerror or error}). Free space, or choose another "
            "--out."
        ) from error


def _write_vectors(path: Path, answered: Answered, found: proof.Proof) -> None:
    """Write some images with the run's answers, for whoever computes them elsewhere."""
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
