"""What an exported file says about its network, beside the weights."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deepcnn
from deepcnn.config import Config, to_dict
from deepcnn.data.formats.decoding import MAX_PIXELS
from deepcnn.errors import RunError
from deepcnn.inference.calibration import Calibration
from deepcnn.settings import Fit

# For whoever brings pictures to the network's size without this program; see `decoding`.
RESIZE = (
    "The EXIF orientation is applied, transparency is laid over black, colours are converted to "
    "gray (1 channel) or RGB (3). A picture of another size is scaled with a Lanczos filter, "
)
FITS: dict[Fit, str] = {
    "crop": "its aspect kept, until it covers the image shape, and cut to it around its centre.",
    "pad": "its aspect kept, until it fits into the image shape, with black around it.",
    "squeeze": "to the image shape, whatever its aspect.",
}


@dataclass(frozen=True)
class Accuracy:
    """How many images of a split were answered correctly."""

    split: str
    correct: int
    total: int


@dataclass(frozen=True)
class About:
    """The classes in their order, the form of the images, and where the network comes from.

    `image_shape`: height, width, channels. `step`, `averaged`: of the checkpoint. `calibration`,
    `accuracy`: None if nothing is known. `inputs`: the transform, as a run stores it. `settings`:
    the run's configuration, without folders of the machine that trained it. `version`: of the
    program.
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    step: int
    averaged: bool
    calibration: Calibration | None
    accuracy: Accuracy | None
    inputs: dict[str, Any] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    version: str = deepcnn.__version__

    @property
    def fit(self) -> Fit:
        """How pictures are brought to the image's size; older files do not store this."""
        found = self.settings.get("fit", "crop")
        return found if found in FITS else "crop"

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for `from_dict`, which JSON can hold."""
        return {
            "deepcnn": self.version,
            "classes": self.classes,
            "image_shape": self.image_shape,
            "resize": RESIZE + FITS[self.fit],
            "step": self.step,
            "averaged": self.averaged,
            "calibration": self.calibration and self.calibration.to_dict(),
            "accuracy": self.accuracy and dataclasses.asdict(self.accuracy),
            "inputs": self.inputs,
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, values: Any, where: str) -> About:
        """Undo `to_dict`; raises RunError, naming `where`, for values that deepcnn never writes."""
        try:
            classes, shape = tuple(values["classes"]), tuple(values["image_shape"])
            if not classes or not all(isinstance(name, str) for name in classes):
                raise ValueError("expected names of classes")
            if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
                raise ValueError("expected an image shape of three numbers above 0")
            if math.prod(shape[:2]) > MAX_PIXELS:
                raise ValueError(f"expected images of at most {MAX_PIXELS:,} pixels")
            doubts, accuracy = values["calibration"], values["accuracy"]
            return cls(
                classes,
                shape,
                int(values["step"]),
                bool(values["averaged"]),
                None if doubts is None else Calibration.from_dict(doubts, where),
                None if accuracy is None else Accuracy(**accuracy),
                dict(values["inputs"]),
                dict(values["settings"]),
                str(values["deepcnn"]),
            )
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise RunError(f"{where}: {_NOT_OURS} ({error!r})") from error

    def to_properties(self) -> dict[str, str]:
        """Return the same as properties, with each value as JSON."""
        return {
            name: json.dumps(value, ensure_ascii=False) for name, value in self.to_dict().items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], where: str) -> About:
        """Undo `to_properties`; raises RunError as `from_dict` does."""
        try:
            if "deepcnn" not in properties:
                raise ValueError("it does not say so")
            values = {name: json.loads(properties[name]) for name in PROPERTIES}
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise RunError(f"{where}: {_NOT_OURS} ({error!r})") from error
        return cls.from_dict(values, where)


PROPERTIES = (
    *("deepcnn", "classes", "image_shape", "step", "averaged"),
    *("calibration", "accuracy", "inputs", "settings"),
)
_NOT_OURS = "not a network as `deepcnn export` writes it"


def settings_of(config: Config) -> dict[str, Any]:
    """Return a configuration that says nothing about the machine, with files by name only."""
    start = config.start_from and Path(config.start_from).name
    data = name_of_data(config)
    return to_dict(dataclasses.replace(config, data=data, data_dir=None, start_from=start))


def name_of_data(config: Config) -> str:
    """Return the name of a run's data, or that of their file or folder."""
    return Path(config.data).name or config.data
