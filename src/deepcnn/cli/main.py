"""The program `deepcnn`: one table of its commands."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from types import ModuleType

from deepcnn import __version__, presets
from deepcnn.cli.arguments import describe_presets, parse, printable
from deepcnn.errors import ConfigError, DeepcnnError

# Each command with what follows it. It is done by the module of its name, `data fetch` by
# `data_fetch`, whose first line is its help. Modules that need torch are imported by the command
# that needs them, when it runs: help must answer at once.
COMMANDS = {
    "train": "[PRESET] [--FIELD VALUE ...]",
    "evaluate": "[RUN] [--follow]",
    "predict": "[RUN] PICTURE ...",
    "report": "[RUN ...] [-o FILE]",
    "export": "[RUN] --to FORM",
    "runs": "[FOLDER]",
    "calibrate": "[RUN] [--error SHARE]",
    "serve": "[RUN]",
    "bench": "[--json]",
    "data fetch": "[NAME] [--from PATH]",
    "data verify": "[NAME]",
    "data show": "[NAME or PATH]",
    "data convert": "SOURCE FOLDER --to FORM",
}


def main() -> None:
    """Run the program with the arguments it was started with."""
    try:
        sys.exit(run(sys.argv[1:]))
    except DeepcnnError as error:
        if not error.told:
            print(f"deepcnn: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("deepcnn: stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def run(arguments: list[str]) -> int:
    """Do what arguments ask for, and return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        print(f"deepcnn {__version__}")
        return 0
    words = 2 if arguments[0] == "data" else 1
    command = " ".join(arguments[:words])
    if command in ("data", "data -h", "data --help"):
        print(_help())
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        raise ConfigError(
            f"there is no command {command!r}."
            + (f" Did you mean {near[0]!r}?" if near else "")
            + " See: deepcnn --help"
        )
    module = _module(command)
    if command == "train":  # which starts from a preset, or from a run
        options = module.parse_options(arguments[words:])
    else:
        options = parse(command, module.Options, arguments[words:])
    status: int = module.run(options)
    return status


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"deepcnn.cli.{command.replace(' ', '_')}")


def _help() -> str:
    lines = []
    for command, usage in COMMANDS.items():
        first = (_module(command).__doc__ or "").splitlines()[0]
        lines.append(f"  {f'deepcnn {command} {usage}':<46} {first}")
        if command == "train":
            lines += [
                "    presets (without a name: " + presets.DEFAULT + "):",
                describe_presets(),
            ]
    listed = "\n".join(lines)
    return f"""deepcnn {__version__}: trains small-image classifiers

{listed}

Every command explains its fields with --help."""
