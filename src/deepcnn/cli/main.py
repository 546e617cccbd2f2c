"""The program `deepcnn`: one table of its commands."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from deepcnn import __version__, presets
from deepcnn.cli.arguments import describe_presets, parse, squares
from deepcnn.cli.respelled import refuse
from deepcnn.console import say
from deepcnn.errors import ConfigError, DeepcnnError, advice, refused
from deepcnn.stopping import (
    ENDING,
    PIPE,
    WARNING,
    Stopped,
    end_at_once,
    end_by_exception,
    status_of,
)


class Command(NamedTuple):
    """What the help says about a command: the arguments, and what it does."""

    usage: str
    does: str


# Each command is done by the module of its name, `data fetch` by `data_fetch`, which is imported
# when the command runs: help must answer at once.
COMMANDS = {
    "train": Command(
        "[PRESET] [--FIELD VALUE ...]", "Train a run, or go on with one, and score it."
    ),
    "lr-find": Command(
        "[PRESET] [--FIELD VALUE ...]",
        "Find a learning rate, in a short training at growing rates.",
    ),
    "sweep": Command(
        "[PRESET] [--seeds N] [--grid FIELD=A,B ...]",
        "Train several seeds and settings, choose the best, and say how sure that is.",
    ),
    "evaluate": Command("[RUN] [--follow]", "Score a run, once or while it is trained."),
    "predict": Command("[RUN] PICTURE ...", "Say what is on pictures."),
    "report": Command("[RUN ...] [-o FILE]", "Write a page about a run, or compare several."),
    "compare": Command("RUN RUN", "Say whether one of two runs is better, and where they differ."),
    "export": Command("[RUN] --to FORM", "Write a network as one file, proved to answer the same."),
    "runs": Command("[FOLDER]", "List the runs below runs/, newest first."),
    "calibrate": Command(
        "[RUN] [--error SHARE]", 'Find out how sure a network is, and when it says "unsure".'
    ),
    "serve": Command("[RUN]", "Answer about pictures over HTTP."),
    "bench": Command("[--json]", "Measure how fast this machine trains, scores and answers."),
    "doctor": Command(
        "DATA or RUN [--out PAGE]",
        "Say what is wrong with a data set: duplicates, leaks, odd files, too few examples.",
    ),
    "data fetch": Command("[NAME] [--from PATH]", "Fetch and verify a data set."),
    "data verify": Command("[NAME]", "Check a data set's files."),
    "data show": Command("[NAME or PATH]", "Count the classes of a data set and draw some images."),
    "data convert": Command("SOURCE FOLDER --to FORM", "Write a data set in another form."),
    "data index": Command(
        "FOLDER", "List the TFRecord or Parquet shards of a folder for a server."
    ),
}


def main() -> None:
    """Run the program with the arguments it was started with."""
    # A warning ahead of the end ends a training with success, as it does once there are steps to
    # save; other commands do not know it.
    end_by_exception(*ENDING, WARNING if sys.argv[1:2] == ["train"] else None)
    try:
        status = _status()
        if sys.stdout is not None:  # as it is where it was closed before the start
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough
        status = status_of(PIPE)
        _leave_output()
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        status = status_of(number)
        _complain("stopped")
    except OSError as error:
        status = 1
        if error.filename is None:  # of a file's content: those of results are named already
            _leave_output()
            _complain(f"{refused(Path('the output or a temporary file'), error)} {advice(error)}")
        else:
            _complain(f"{os.fsdecode(error.filename)}: {error.strerror}. {advice(error)}")
    end_at_once()
    sys.exit(status)


def _status() -> int:
    """Run what the arguments ask for, print any error, and return the exit status."""
    try:
        return run(sys.argv[1:])
    except DeepcnnError as error:
        if not error.told:
            _complain(str(error))
        return 1


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody is left who could be told
        say(f"deepcnn: {text}", to="stderr")


def _leave_output() -> None:
    """Discard what Python would still write to standard output at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: list[str]) -> int:
    """Run what arguments ask for, and return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(_help())
        return 0
    if arguments[0] == "--version":
        say(f"deepcnn {__version__}")
        return 0
    words = 2 if arguments[0] == "data" else 1
    command = " ".join(arguments[:words])
    if command in ("data", "data -h", "data --help"):
        say(_help())
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        raise ConfigError(
            f"there is no command {command!r}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + " See: deepcnn --help"
        )
    arguments = squares(arguments)
    refuse(command, arguments[words:])
    module = _module(command)
    if command in ("train", "lr-find", "sweep"):  # which start from a preset, or from a run
        options = module.parse_options(arguments[words:])
    else:
        options = parse(command, module.Options, arguments[words:])
    status: int = module.run(options)
    return status


def _module(command: str) -> ModuleType:
    return importlib.import_module("deepcnn.cli." + command.replace(" ", "_").replace("-", "_"))


def _help() -> str:
    lines = []
    for name, command in COMMANDS.items():
        lines.append(f"  {f'deepcnn {name} {command.usage}':<46} {command.does}")
        if name == "train":
            lines += [
                "    presets (without a name: " + presets.DEFAULT + "):",
                describe_presets(),
            ]
    listed = "\n".join(lines)
    return f"""deepcnn {__version__}: trains small-image classifiers

{listed}

Every command explains its fields with --help."""
