"""How arguments become options, and how runs and networks are found by name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import tyro

from deepcnn import presets
from deepcnn.console import say
from deepcnn.errors import ConfigError

T = TypeVar("T")


def parse(command: str, kind: type[T], arguments: list[str]) -> T:
    """Return the options of a command; for --help and unreadable arguments the program ends."""
    return tyro.cli(kind, prog=f"deepcnn {command}", args=arguments)


def expect(what: str, found: str, expected: Iterable[str], hint: str = "") -> None:
    """Raise ConfigError unless a name is one of those that are expected."""
    expected = list(expected)
    if found not in expected:
        near = difflib.get_close_matches(found, expected, n=1)
        raise ConfigError(
            f"there is no {what} {found!r}; expected one of {', '.join(expected)}."
            + (f" Did you mean {near[0]}?" if near else "")
            + hint
        )


def describe_presets() -> str:
    """Return a line for each preset, with the first line of its docstring."""
    return "\n".join(
        f"    {name:<10} {(make.__doc__ or '').splitlines()[0]}"
        for name, make in presets.PRESETS.items()
    )


def with_dashes(argument: str) -> str:
    """Spell a flag as we do, --num_gpus as --num-gpus; the parser takes both."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def squares(arguments: list[str]) -> list[str]:
    """Return arguments in which a single number of an --image-size stands twice, for a square."""
    found: list[str] = []
    for i, argument in enumerate(arguments):
        name, equals, value = with_dashes(argument).partition("=")
        rest = arguments[i + 1 : i + 3]
        if name == "--image-size" and equals and value.isdecimal():
            found += [name, value] if rest[:1] and rest[0].isdecimal() else [name, value, value]
        elif name == "--image-size" and rest[:1] and rest[0].isdecimal():
            alone = len(rest) < 2 or not rest[1].isdecimal()
            found += [name, rest[0]] if alone else [name]
        else:
            found.append(argument)
    return found


def own_network(name: str | None) -> str | None:
    """Return the name of the user's own network, found from the current folder, or None."""
    if name is None or ":" not in name:
        return None
    here = str(Path.cwd())
    if here not in sys.path:  # where a program that pip installed does not look by itself
        sys.path.insert(0, here)
    return name


def which_run(run: Path | None) -> Path:
    """Return the run that was named, or the newest one, saying which."""
    if run is not None:
        return run
    from deepcnn.runs.find import newest_run

    found = newest_run()
    say(f"deepcnn: the run is {found}", to="stderr")
    return found


def value_of(flag: str, arguments: list[str]) -> str | None:
    """Return the last value that is given for a flag, as the parser does."""
    found = None
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            found = arguments[i + 1]
        if argument.startswith(flag + "="):
            found = argument.removeprefix(flag + "=")
    return found
