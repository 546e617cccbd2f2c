"""Functions of the source are replaced by name, `package.module:Class.function`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]


def patch(target: str, change: Callable[[Function], Function]) -> None:
    """Put what `change` makes of a function in its place."""
    owner, name = find(target)
    static = inspect.getattr_static(owner, name)
    if isinstance(static, classmethod):
        setattr(owner, name, classmethod(change(static.__func__)))
    else:
        setattr(owner, name, change(static))


def find(target: str) -> tuple[Any, str]:
    """Return the module or class that holds a function, and its name there.

    Raises ImportError or AttributeError where there is no such function.
    """
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    if not callable(getattr(owner, name)):
        raise AttributeError(f"{target}: expected a function")
    return owner, name
