"""Where to compute, and how precisely."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import deepcnn
from deepcnn.config import MOST_THREADS
from deepcnn.errors import ConfigError
from deepcnn.hardware import multiplies_bf16

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Place:
    """Where to compute, and how precisely."""

    device: torch.device
    precision: Precision

    @classmethod
    def choose(cls, device: str, precision: Literal["auto"] | Precision) -> Place:
        """Return the place with these names; raises ConfigError for a device that is not here."""
        chosen = choose_device(device)
        return cls(chosen, choose_precision(precision, chosen))

    @property
    def dtype(self) -> torch.dtype:
        """The type in which numbers are multiplied."""
        return _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a network computes at this precision."""
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)


@dataclass(frozen=True)
class Part:
    """One of the `count` parts that a batch is divided into, and the device that computes it.

    Parts differ in length by one example at most. `with_before`: the part is wanted together with
    the example before it; for the first part, this is the batch's last example.
    """

    index: int
    count: int
    device: torch.device
    with_before: bool = False

    def slice(self, length: int) -> slice:
        """Return which of `length` examples belong to this part."""
        return slice(self.index * length // self.count, (self.index + 1) * length // self.count)

    def of(self, values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
        """Return this part of values for the whole batch; `axis`: that of the examples."""
        own = self.slice(values.shape[axis])
        if self.with_before:
            return values.take(range(own.start - 1, own.stop), axis, mode="wrap")
        return values[(*[slice(None)] * axis, own)]


def choose_device(name: str) -> torch.device:
    """Return the device with this name; auto: cuda if there is one, else mps, else cpu."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()  # what keeps no numbers, as meta, is no use
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: {name!r} cannot be used here ({reason}); expected auto, cpu, cuda, "
            "cuda:N or mps"
        ) from error
    return device


def use_threads(threads: int | None) -> None:
    """Let this process compute with this many processor threads; None: torch's choice."""
    if threads is None:
        return
    if threads < 1:
        raise ConfigError(f"threads: expected at least 1, found {threads}")
    if threads > MOST_THREADS:
        raise ConfigError(f"threads: expected at most {MOST_THREADS:,}, found {threads}")
    torch.set_num_threads(threads)


def choose_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """Return the precision with this name; auto: the fastest that is as accurate on this device.

    This is bf16 if the hardware multiplies it (GPUs since Ampere; processors with AVX512-BF16 or
    AMX), and fp32 otherwise: emulated bf16 is about three times slower than fp32.
    """
    if name != "auto":
        if name not in _DTYPES:
            raise ConfigError(f"precision: expected auto or {', '.join(_DTYPES)}, found {name!r}")
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if multiplies_bf16() else "fp32"
    return "fp32"


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to a device. A GPU fetches it by itself, so the host need not wait."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_it_is(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which all computations on a device keep their precision."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def describe_environment(place: Place) -> dict[str, Any]:
    """Return what a run's numbers depend on beside its configuration, in a form for JSON.

    Two runs can only be the same bit for bit if all of this is the same.
    """
    device = place.device
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        can = torch.cpu.get_capabilities()
        wide = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "neon", "sve")
        features = [name for name in wide if can.get(name)]
        name = can.get("cpu_name", "")  # the maker decides about `float32_products`
        hardware = " ".join([platform.machine(), *([str(name)] if name else []), *features])
    return {
        "deepcnn": deepcnn.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{sys.platform} {platform.release()}",
        "device": device.type,
        "hardware": hardware,
        "precision": place.precision,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
