"""Fetch and verify a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from deepcnn.console import console


@dataclass(frozen=True)
class Options:
    """Fetch a data set, verify every byte, and keep it for all runs."""

    name: tyro.conf.Positional[str] = "cifar10"
    """Name of the data set."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Take the data from this archive or folder; None: from the network."""
    data_dir: Path | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""
    json: bool = False
    """Print events as JSON, one on each line."""


def run(options: Options) -> int:
    """Bring the files into the folder of all data sets."""
    from deepcnn.data.fetch import fetch

    with console(options.json) as tell:
        fetch(options.name, data_dir=options.data_dir, source=options.source, emit=tell)
    return 0
