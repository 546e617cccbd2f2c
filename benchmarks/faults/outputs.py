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
            convert(data, target, "cifar")

    def command(*arguments: str) -> Callable[[Path], object]:
        return lambda folder: main.run([*arguments, str(folder / "new" / arguments[0])])

    return {
        "data convert": converted,
        "export": command("export", str(run), "--to", "safetensors", "--out"),
        "predict --out": lambda folder: main.run(
            ["predict", str(run), "--data", str(data), "--out", str(folder / "answers.csv")]
        ),
    }
