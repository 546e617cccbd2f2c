"""How a run begins: its paths, and what it took from another training."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepcnn import config as configs
from deepcnn.config import Config
from deepcnn.data.open import NAMES
from deepcnn.errors import DeepcnnError
from deepcnn.runs.run import CONFIG, Run
from deepcnn.settings import ModelConfig


@dataclass(frozen=True)
class Beginning:
    """What a run took from another training before its first step.

    `path`: the run or the file that the user named. `file`: the file that was read. `step`,
    `averaged`: of the other network. `data`: what that was trained on; None if it is not known.
    `sha256`: of the tensors that were taken, as they lie in the file. `taken`: the names of the
    layers that were taken. `refitted`: those of them that had another number of channels. `left`:
    by name, why other layers kept their initial weights.
    """

    path: str
    file: str
    step: int
    averaged: bool
    data: str | None
    sha256: str
    taken: tuple[str, ...]
    refitted: tuple[str, ...]
    left: dict[str, str]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Beginning:
        """Undo `to_dict`, after JSON; raises TypeError, KeyError or ValueError for other values."""
        lists = {name: tuple(map(str, values[name])) for name in ("taken", "refitted")}
        left = {str(name): str(why) for name, why in dict(values["left"]).items()}
        return cls(**{**values, **lists, "left": left})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in a form that JSON can hold."""
        return dataclasses.asdict(self)

    def described(self) -> str:
        """Return one line that says which layers were taken, by the first names, and which not."""
        whole = [n for n in _short(self.taken) if n not in _short(self.left)]
        partly = [n for n in _short(self.taken) if n in _short(self.left)]
        taken = whole + [f"{name} (in part)" for name in partly]
        text = f"Began with {self.path}, step {self.step:,}: took {', '.join(taken)}"
        if self.refitted:
            text += f" ({', '.join(_short(self.refitted))} fitted to other channels)"
        why = {name: self.left[layer] for layer in self.left for name in _short([layer])}
        new = [f"{name} ({reason})" for name, reason in why.items()]
        return f"{text}; new: {', '.join(new) or 'nothing'}."


def layer_of(name: str) -> str:
    """Return the layer that a parameter or a statistic belongs to, by its name."""
    return name.rpartition(".")[0]


def _short(layers: Any) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in layers))


def run_of(file: Path) -> Run | None:
    """Return the run that a checkpoint lies in, or None."""
    for folder in file.resolve().parents[1:3]:  # above checkpoints/, or checkpoints/best/
        if (folder / CONFIG).is_file():
            return Run(folder)
    return None


def config_of(path: Path) -> Config | None:
    """Return the configuration of a run, a checkpoint in one, or a file of weights.

    None if it cannot be read; opening the weights will then say what is wrong.
    """
    with contextlib.suppress(DeepcnnError, OSError):
        if path.is_dir():
            return Run.open(path).config()
        if (run := run_of(path)) is not None and path.is_file():
            return run.config()
        if path.is_file():
            settings = _exported(path).get("settings")
            return configs.from_dict(settings) if isinstance(settings, dict) else None
    return None


def _exported(path: Path) -> dict[str, Any]:
    """Return what an exported file says about its network."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            found = json.loads((file.metadata() or {}).get("deepcnn", "null"))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def with_widths_of(config: Config, start_from: str, *, name: str) -> Config:
    """Return a preset whose network can take the layers of another run.

    `start_from`: the run or the file. `name`: of the requested network; it gets the other network's
    widths if that has the same name.
    """
    parent = config_of(Path(start_from).expanduser())
    if parent is None or parent.model.name != name:
        return config
    return dataclasses.replace(config, model=ModelConfig(name, parent.model.widths))


def with_absolute_paths(config: Config) -> Config:
    """Let the stored configuration mean the same data, from wherever the run is read."""
    data_dir = config.data_dir and str(Path(config.data_dir).expanduser().resolve())
    folder = Path(config.data).expanduser()
    is_path = config.data not in NAMES and folder.exists()
    data = str(folder.resolve()) if is_path else config.data
    start_from = config.start_from and str(Path(config.start_from).expanduser().resolve())
    exclude = config.exclude and str(Path(config.exclude).expanduser().resolve())
    return dataclasses.replace(
        config, data=data, data_dir=data_dir, start_from=start_from, exclude=exclude
    )
