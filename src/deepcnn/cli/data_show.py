"""Count the classes of a data set and draw some images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from deepcnn.console import console, say, say_json
from deepcnn.errors import DataError
from deepcnn.events import Noted
from deepcnn.settings import DataSpec, Fit

if TYPE_CHECKING:
    from deepcnn.data.survey import Survey


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
    """Print the counts, and write a sheet of pictures."""
    from deepcnn.data import survey
    from deepcnn.data.dataset import reading
    from deepcnn.data.open import open_dataset

    spec = DataSpec(
        data=options.data,
        image_size=options.image_size,
        fit=options.fit,
        skip_bad=options.skip_bad,
        data_dir=options.data_dir,
    )
    with console(options.json) as tell:
        dataset = open_dataset(spec, emit=tell)
        dataset.check_size()
        source = dataset.split(options.split)
        found = survey.survey(source, reading(options.split, tell))
        if spelled := survey.spelled(found):
            tell(Noted(f"{spelled:,} names are spelled on the sheet: no font has their characters"))
    if not options.json:
        _print_counts(options, found)
        if others := [split for split in dataset.splits if split != options.split]:
            say("other splits: " + ", ".join(f"{split} (--split {split})" for split in others))
    out = options.out or Path(f"{Path(options.data).name}-{options.split}.png")
    try:
        survey.draw(found).save(out)
    except (OSError, ValueError) as error:
        raise DataError(f"{out}: the sheet cannot be written ({error})") from error
    if options.json:
        also = {"splits": dataset.splits, "sheet": str(out)}
        say_json(_as_json(options, found) | also)
        return 0
    drawn = len(found.images)
    rest = f", the first {drawn} classes" if drawn < len(found.classes) else ""
    say(f"sheet: {out}{rest}")
    return 0


def _print_counts(options: Options, found: Survey) -> None:
    from deepcnn.shown import shown

    height, width, channels = found.shape
    total = f"{found.counts.sum():,} images, {height}×{width}×{channels}"
    say(f"{options.data}, {options.split}: {total}")
    for name, count in zip(found.classes, found.counts, strict=True):
        say(f"  {count:>9,}  {shown(name)}")


def _as_json(options: Options, found: Survey) -> dict[str, Any]:
    return {
        "data": options.data,
        "split": options.split,
        "examples": int(found.counts.sum()),
        "shape": found.shape,
        "classes": dict(zip(found.classes, found.counts.tolist(), strict=True)),
    }
