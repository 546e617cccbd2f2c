"""Changes to what a run stores, as if it had been begun so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deepcnn.runs import checkpoint
from deepcnn.runs.owner import Owner
from deepcnn.runs.run import CONFIG, Run
from deepcnn.runs.trained_on import TrainedOn


def change(run: Path, name: str = CONFIG, **values: Any) -> None:
    """Change entries of a file of JSON; its digest fits again."""
    stored = Run(run)
    stored.write(name, stored.read(name) | values)


def own(run: Path) -> None:
    """Make all checkpoints of a run say that they are of it, as it is now."""
    owner = Owner.of(Run(run).config(), TrainedOn.read(Run(run)))
    for path in checkpoint.paths(Run(run).checkpoints):
        step, tensors, feed = checkpoint.load(path)
        checkpoint.save(path.parent, step, tensors, keep=99, owner=owner, feed=feed)
