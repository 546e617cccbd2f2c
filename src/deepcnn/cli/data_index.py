"""List the TFRecord or Parquet shards of a folder for a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from deepcnn.console import console, say, say_json


@dataclass(frozen=True)
class Options:
    """Write index.json into a folder of shards, which a server then hands out as it is.

    TFRecord files may hold pixels or encoded pictures, as TF-Slim and TFDS write them, and may be
    compressed. Parquet files hold pictures, as Hugging Face writes them. No file is changed.
    """

    folder: tyro.conf.Positional[Path]
    """The folder."""
    json: bool = False
    """Print events as JSON, one on each line, then an object with the counts."""


def run(options: Options) -> int:
    """List the files."""
    from deepcnn.data.indexing import index

    with console(options.json) as tell:
        counts = index(options.folder, emit=tell)
    if options.json:
        say_json({"folder": str(options.folder), "examples": counts})
        return 0
    found = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    say(f"{options.folder}: {found}. Put it on a server, and train on it: --data https://…")
    return 0
