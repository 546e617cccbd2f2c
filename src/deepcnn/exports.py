"""The forms of file in which a trained network works without its run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deepcnn.errors import ConfigError
from deepcnn.events import Listener, ignore
from deepcnn.inference.export import Exported, Wanted, export_onnx, export_safetensors
from deepcnn.inference.load import ONNX, WEIGHTS
from deepcnn.models.build import Given
from deepcnn.reports.write import export_html
from deepcnn.runs.run import Run

FOLDER, NAME = "export", "model"  # below the run, where no file is named


class Form(NamedTuple):
    """A form of file: how its name ends, what writes it, whether it answers the run's images."""

    suffix: str
    write: Callable[[Wanted], Exported]
    answers_images: bool


FORMS: dict[str, Form] = {
    "onnx": Form(ONNX, export_onnx, answers_images=True),
    "html": Form(".html", export_html, answers_images=False),
    "safetensors": Form(WEIGHTS, export_safetensors, answers_images=False),
}


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
    """Write the network of a run as a file, which appears whole or not at all.

    `to`: a form of `FORMS`. `out`: the file; None: `export/model` with the form's ending, in the
    run. `step`: of the checkpoint; None: the best one if the run keeps it, else the newest.
    `averaged`: use the moving averages of the parameters, if the run keeps any. `model`: the
    network again, if it is not one of this package.

    An ONNX file is compared with the run on every image that the run was scored on, so these images
    must be there. Four arguments are only for this comparison, and so is `emit`, which hears how
    far it is: `device` and `threads` say where the run's own answers are computed; `data` and
    `data_dir` say where its images lie now. Weights are read back and compared, and a page is
    compared on images of its own.

    Raises ExportError if something differs, and then writes nothing; another DeepcnnError for what
    is missing or does not fit.
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
    if not form.answers_images:
        _refuse_what_is_for_images(wanted, to)
    return form.write(wanted)


def _refuse_what_is_for_images(wanted: Wanted, to: str) -> None:
    for name in ("device", "threads", "data", "data_dir"):
        value = getattr(wanted, name)
        if value not in (None, "auto"):
            raise ConfigError(
                f"{name}: found {value}, but only an export to onnx answers the images that the "
                f"run was scored on. Leave it out for {to}"
            )
