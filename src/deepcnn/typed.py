"""Reads values of given types from JSON, strictly."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal

from deepcnn.errors import ConfigError


def read(kind: Any, value: Any, where: str, *, may_lack: frozenset[str] = frozenset()) -> Any:
    """Return a value from JSON as a value of a type; raise ConfigError if it does not fit.

    `kind`: a dataclass, a Literal, a tuple, a type that may be None, float, int, str or bool.
    `where`: the value's name in errors; fields in it follow after a dot. `may_lack`: names of
    fields, in this form, that may be missing; they have their defaults then.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a group of settings, found {value!r}")
        hints = typing.get_type_hints(kind)
        if unknown := sorted(value.keys() - hints.keys()):
            raise ConfigError(f"{where}: unknown setting {unknown[0]!r}")
        missing = sorted(hints.keys() - value.keys())
        if missing := [name for name in missing if f"{where}.{name}" not in may_lack]:
            raise ConfigError(f"{where}: missing setting {missing[0]!r}")
        return kind(
            **{  # type: ignore[operator]  # a dataclass is a type here
                name: read(hint, value[name], f"{where}.{name}", may_lack=may_lack)
                for name, hint in hints.items()
                if name in value
            }
        )
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal and value in arguments:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (a for a in arguments if a is not type(None))
        return read(kind, value, where, may_lack=may_lack)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            pairs = zip(kinds, value, strict=True)
            return tuple(
                read(k, v, f"{where}[{i}]", may_lack=may_lack) for i, (k, v) in enumerate(pairs)
            )
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ConfigError(f"{where}: expected {kind}, found {value!r}")
