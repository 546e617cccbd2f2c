"""Commands that write files other than a run's, which the campaigns hurt too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepcnn.cli import main
from deepcnn.data.convert import convert


def of(data: Path, run: Path) -> dict[str, Callable[[Path], object]]:
    """Return what writes into a folder, by name: it is repeated after a kill."""

    def converted(folder: Path) -> None:
        target = folder / "new" / "set"
        if not target.exists():  # it appears whole, so that nobody needs to repeat it
            convert(data, target, "tfrecord", shards=2)

    def command(*arguments: str) -> Callable[[Path], object]:
        """Return what runs a command, whose last argument is a file in the folder."""
        *rest, file = arguments
        return lambda folder: main.run([*rest, str(folder / file)])

    predict = ["predict", str(run), "--data", str(data), "--out", "answers.csv"]
    return {
        "data convert": converted,
        "export": command("export", str(run), "--to", "safetensors", "--out", "new/a.safetensors"),
        "predict --out": command(*predict),
    }
