"""Check a data set's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from deepcnn.console import say, say_json
from deepcnn.errors import DataError


@dataclass(frozen=True)
class Options:
    """Check the files of a data set against their SHA-256."""

    name: tyro.conf.Positional[str] = "cifar10"
    """Name of the data set."""
    data_dir: Path | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""
    json: bool = False
    """Print one JSON object."""


def run(options: Options) -> int:
    """Say of each file whether it is whole."""
    from deepcnn.data.fetch import verify

    problems = verify(options.name, data_dir=options.data_dir)
    if options.json:
        files = {str(path): problem for path, problem in problems.items()}
        whole = not any(problems.values())
        say_json({"dataset": options.name, "whole": whole, "files": files})
    else:
        for path, problem in problems.items():
            say(f"{path}: {problem or 'whole'}")
    if any(problems.values()):
        raise DataError(
            f"{options.name} is not whole. Mend it with: deepcnn data fetch {options.name}"
        )
    return 0
