"""Flags of TensorFlow's programs that are spelt differently here.

Each of them would otherwise be an unknown option. So it is refused with our spelling and a whole
command to type. Flags that are spelt alike (`--batch_size`, `--data_dir`, `--num_gpus`,
`--log_device_placement`, `--validation_size`) are simply accepted.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from deepcnn.errors import ConfigError

_ON, _OFF = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


@dataclass(frozen=True)
class Flag:
    """What you type here instead of one of TensorFlow's flags.

    `here`: the words, with `{}` for the value; empty if the flag is left out. `off`: for a switch,
    the words that turn it off; None for a flag with a value. `values`: for a flag with only a few
    values, the words for each. `says`: the message instead of "is spelt … here".
    """

    here: str
    off: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    says: str = ""


_RUN_DIR = Flag("--run-dir {}")
_OF_TRAIN = Flag("", says="is a flag of deepcnn train")
_OF_EVALUATE = Flag("", says="is a flag of deepcnn evaluate")
_WIDTHS = "is spelt --model.widths HIDDEN1 HIDDEN2 here"

# By command and by name, without dashes at the front.
FLAGS: Mapping[str, Mapping[str, Flag]] = {
    "train": {
        "max_steps": Flag("--steps {}"),
        "num_epochs": Flag("--epochs {}"),
        "train_dir": _RUN_DIR,
        "log_dir": _RUN_DIR,
        "log_frequency": Flag("--log-every {}"),
        "use_fp16": Flag("--precision fp16", off="--precision fp32"),
        "learning_rate": Flag("--optimizer.learning-rate {}"),
        "hidden1": Flag("", says=_WIDTHS),
        "hidden2": Flag("", says=_WIDTHS),
        "input_data_dir": Flag("--data-dir {}"),
        "fake_data": Flag("--data synthetic", off=""),
        "eval_dir": _OF_EVALUATE,
        "eval_data": _OF_EVALUATE,
        "eval_interval_secs": _OF_EVALUATE,
        "checkpoint_dir": _OF_EVALUATE,
        "num_examples": _OF_EVALUATE,
        "run_once": Flag("", off="", says="is a flag of deepcnn evaluate"),
    },
    "evaluate": {
        "checkpoint_dir": Flag("{}", says="needs no flag here: the run's directory comes first"),
        "train_dir": Flag("{}", says="needs no flag here: the run's directory comes first"),
        "eval_dir": Flag("", says="is not needed here: summaries are written into the run"),
        "eval_data": Flag("", values={"test": "--split test", "train_eval": "--split train"}),
        "eval_interval_secs": Flag("--follow --interval {}"),
        "num_examples": Flag("--examples {}"),
        "run_once": Flag("", off="--follow", says="is not needed here: only --follow goes on"),
        "use_fp16": Flag("--precision bf16", off="--precision fp32"),
        "batch_size": Flag("", says="is not needed here: each example counts once"),
        "max_steps": _OF_TRAIN,
    },
    "data convert": {
        "directory": Flag(
            "mnist {} --to tfrecord", says="is not needed here: name the data and a new folder"
        ),
    },
}
_HIDDEN = {"hidden1": "128", "hidden2": "32"}  # units that their program takes by itself


def refuse(command: str, arguments: list[str]) -> None:
    """Raise ConfigError if arguments hold flags of TensorFlow that are spelt differently here."""
    flags = FLAGS.get(command, {})
    told: dict[str, None] = {}
    typed: list[str] = []
    widths: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, given = argument.partition("=")
        key, on = _key(name, flags)
        if key is None:
            typed.append(argument)
            continue
        value = given if equals else _value(flags[key], rest)
        words, says = _here(flags[key], on, value)
        told[f"{name} {says}"] = None
        if key in _HIDDEN:
            widths[key] = value or _HIDDEN[key]
        typed += [word for word in words if word != "--follow" or word not in typed]
    if not told:
        return
    if widths:
        typed = typed if typed and not typed[0].startswith("-") else ["mnist", *typed]
        typed += ["--model.widths", *(_HIDDEN | widths).values()]
    instead = shlex.join(["deepcnn", *command.split(), *typed])
    raise ConfigError("\n".join([*told, f"Type: {instead}"]))


def _key(name: str, flags: Mapping[str, Flag]) -> tuple[str | None, bool]:
    """Return which of the flags a name is, and whether it turns it on: --norun_once does not."""
    if not name.startswith("--"):
        return None, True
    key = name.removeprefix("--").replace("-", "_")
    if key in flags:
        return key, True
    off = key.removeprefix("no")
    if key.startswith("no") and off in flags and flags[off].off is not None:
        return off, False
    return None, True


def _value(flag: Flag, rest: list[str]) -> str | None:
    """Take the value that follows a flag from the arguments after it."""
    if not rest or rest[0].startswith("--"):
        return None
    if flag.off is not None and rest[0].lower() not in (*_ON, *_OFF):
        return None
    return rest.pop(0)


def _here(flag: Flag, on: bool, value: str | None) -> tuple[list[str], str]:
    """Return the words that replace a flag with its value, and the message about it."""
    template = flag.here
    if flag.off is not None:
        on = on and (value or "true").lower() not in _OFF
        template = flag.here if on else flag.off
    elif flag.values:
        template = flag.values.get(value or "", next(iter(flag.values.values())))
    words = template.split()
    spelt = " ".join(word for word in words if word != "{}")
    says = flag.says or (f"is spelt {spelt} here" if spelt else "is left out here")
    given = "VALUE" if value is None else value
    return [given if word == "{}" else word for word in words], says
