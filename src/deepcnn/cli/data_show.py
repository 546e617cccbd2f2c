"""Count the classes of a data set and draw some images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from deepcnn.config import DataSpec
from deepcnn.console import console
from deepcnn.errors import DataError


@dataclass(frozen=True)
class Options:
    """Count the examples of each class, and draw some of them on a sheet (PNG)."""

    data: tyro.conf.Positional[str] = "cifar10"
    """Name of a data set, or a path."""
    split: Literal["train", "validation", "test", "extra"] = "train"
    """Which examples."""
    out: Path | None = None
    """File for the sheet; None: NAME-SPLIT.png in the current directory."""
    image_size: tuple[int, int] | None = None
    """Height and width that pictures in folders are brought to; None: those most of them have."""
    skip_bad: bool = False
    """Leave out picture files that cannot be read, naming them."""
    data_dir: str | None = None
    """Folder of all data sets; None: $DEEPCNN_DATA or the user's cache directory."""


def run(options: Options) -> int:
    """Print the counts, and write a sheet of pictures."""
    from deepcnn.data import survey
    from deepcnn.data.dataset import reading
    from deepcnn.data.formats.listings import shown
    from deepcnn.data.open import open_dataset

    spec = DataSpec(
        data=options.data,
        image_size=options.image_size,
        skip_bad=options.skip_bad,
        data_dir=options.data_dir,
    )
    with console(as_json=False) as tell:
        source = open_dataset(spec, emit=tell).split(options.split)
        found = survey.survey(source, reading(options.split, tell))
    height, width, channels = source.shape
    print(f"{options.data}, {options.split}: {len(source):,} images, {height}×{width}×{channels}")
    for name, count in zip(found.classes, found.counts, strict=True):
        print(f"  {count:>9,}  {shown(name)}")
    out = options.out or Path(f"{Path(options.data).name}-{options.split}.png")
    try:
        survey.draw(found).save(out)
    except (OSError, ValueError) as error:
        raise DataError(f"{out}: the sheet cannot be written ({error})") from error
    drawn = len(found.images)
    rest = f", the first {drawn} classes" if drawn < len(found.classes) else ""
    print(f"sheet: {out}{rest}")
    return 0
