"""Optional packages, which only some commands need."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from deepcnn.errors import ConfigError


def needed(module: str, extra: str) -> ModuleType:
    """Import a package of an extra; without it, raise a ConfigError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"the package {module} is needed for this, and cannot be imported ({error}). Install "
            f"it: pip install 'deepcnn[{extra}]'"
        ) from error


def is_installed(module: str) -> bool:
    """Tell whether a package is installed, without importing it."""
    return importlib.util.find_spec(module) is not None
