"""Write a data set in another form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from deepcnn.console import console, say, say_json
from deepcnn.settings import DataSpec, Fit
from deepcnn.shown import quoted


@dataclass(frozen=True)
class Options:
    """Write a data set in another format, with all its splits, into a new folder.

    It reads CIFAR's binary version, MNIST's IDX, SVHN's .mat, TFRecord, .npz, pictures in class
    folders (root/class/*.png, or root/train/class/*.png with val and test), pictures with a table
    of labels (.csv), tables of pixels (.csv), and records of one length (.bin with records.json).
    """

    source: tyro.conf.Positional[str]
    """Name of a data set, or a path."""
    target: tyro.conf.Positional[Path]
    """The new folder. Give it to --data afterwards."""
    to: Literal["tfrecord", "npz", "folder", "cifar", "csv"]
    """The format. folder: PNG files in class folders; cifar: CIFAR-10's, for images of 32×32×3;
    csv: a label and the pixels in each row, for square images."""
    validation_size: int = 0
    """Training examples to split off for validation."""
    validation_choice: Literal["stratified", "first"] = "stratified"
    """Which examples are split off: a random share of each class, or the first ones."""
    validation_seed: int = 0
    """Determines the random share."""
    train_on_extra: bool = False
    """Write the split extra, if there is one, as part of train."""
    shards: int = 1
    """Number of files for each split."""
    image_size: tuple[int, int] | None = None
    """Height and width to which pictures in files are scaled. One number: a square. None: the size
    that most of them have."""
    fit: Fit = "crop"
    """How pictures with another aspect are brought to this size: crop cuts off what does not fit,
    pad adds black, squeeze changes their aspect."""
    skip_bad: bool = False
    """Leave out picture files that cannot be read, and name them."""
    data_dir: str | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""
    json: bool = False
    """Print events as JSON, one on each line, then an object with the counts."""


def run(options: Options) -> int:
    """Write all splits into the new folder."""
    from deepcnn.data.convert import convert

    spec = DataSpec(
        data=options.source,
        validation_size=options.validation_size,
        validation_choice=options.validation_choice,
        validation_seed=options.validation_seed,
        train_on_extra=options.train_on_extra,
        image_size=options.image_size,
        fit=options.fit,
        skip_bad=options.skip_bad,
        data_dir=options.data_dir,
    )
    with console(options.json) as tell:
        counts = convert(spec, options.target, options.to, shards=options.shards, emit=tell)
    if options.json:
        say_json({"folder": str(options.target), "examples": counts})
        return 0
    found = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    target = quoted(str(options.target))
    say(f"{options.target}: {found}. Train on it: deepcnn train --data {target}")
    return 0
