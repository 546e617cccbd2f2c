"""Makes the subject of a report, from a run that was trained before."""

from __future__ import annotations

from pathlib import Path

from deepcnn.data.splits import Split
from deepcnn.devices import Precision
from deepcnn.events import Listener, ignore
from deepcnn.inference.evaluation import Scorer
from deepcnn.models.build import Given
from deepcnn.reports.findings import Subject
from deepcnn.runs.run import Run


def subject_of(
    run: str | Path,
    split: Split | None = None,
    *,
    step: int | None = None,
    averaged: bool = True,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    model: Given | None = None,
    emit: Listener = ignore,
) -> Subject:
    """Let a run's network answer about a split, and return what a report needs.

    `step`: of the checkpoint; None: the best one if it is kept, else the newest. For the other
    arguments and the errors see `Scorer`.
    """
    scorer = Scorer(
        run,
        split,
        averaged=averaged,
        device=device,
        threads=threads,
        precision=precision,
        data=data,
        data_dir=data_dir,
        model=model,
        emit=emit,
    )
    trained, answered = scorer.answered(step)
    scored_on = None if data is None else str(data)
    return Subject(Run.open(Path(run)), trained, answered, scorer.source, scored_on)
