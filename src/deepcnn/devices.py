"""Where to compute, and how precisely."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

import deepcnn
from deepcnn.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
HAS_TRITON = importlib.util.find_spec("triton") is not None  # torch for GPUs brings it along
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Place:
    """Where to compute, and how precisely."""

    device: torch.device
    precision: Precision

    @classmethod
    def choose(cls, device: str, precision: Literal["auto"] | Precision) -> Place:
        """Return the place of those names; raises ConfigError for a device that is not here."""
        chosen = choose_device(device)
        return cls(chosen, choose_precision(precision, chosen))

    @property
    def dtype(self) -> torch.dtype:
        """The type of what is multiplied."""
        return _DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a network computes at this precision."""
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)


@dataclass(frozen=True)
class Part:
    """One of the `count` parts that a batch is divided into, and the device that computes it.

    Parts differ in length by one example at most.
    """

    index: int
    count: int
    device: torch.device

    def slice(self, length: int) -> slice:
        """Return which of `length` examples belong to this part."""
        return slice(self.index * length // self.count, (self.index + 1) * length // self.count)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; auto: cuda where there is one, else mps, else cpu."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: {name!r} cannot be used here ({reason}); expected auto, cpu, cuda, "
            "cuda:N or mps"
        ) from error
    return device


def choose_precision(name: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """Return the precision of that name; auto: the fastest that is as accurate on this device.

    That is bf16 where the hardware multiplies it (GPUs since Ampere; processors with AVX512-BF16
    or AMX), and fp32 elsewhere: emulated, bf16 is about three times slower than fp32.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if multiplies_bf16() else "fp32"
    return "fp32"


@functools.cache
def multiplies_bf16() -> bool:
    """Tell whether this processor multiplies bf16 itself."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def to_device(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to a device. A GPU fetches it itself, so that the host need not wait."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def as_it_is(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which whatever is computed there keeps its precision."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def kernels_are_dear(device: torch.device) -> bool:
    """Tell whether one more kernel costs more than one more pass over a network's parameters."""
    return device.type != "cpu"


def runs_triton(x: torch.Tensor) -> bool:
    """Tell whether functions written for Triton apply, which compute in float32."""
    return HAS_TRITON and x.device.type == "cuda" and x.dtype != torch.float64


def is_on_processor(x: torch.Tensor) -> bool:
    """Tell whether functions made for processors apply, which cannot be traced."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def onednn_computes(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN is here, and computes with this type."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    bf16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bf16)


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Let float32 be multiplied as such, and fast.

    On NVIDIA's GPUs since Ampere torch rounds what cuDNN convolves to TF32, ten bits of the
    fraction. Here float32 is what was asked for; who wants less has bf16.

    On AMD's processors with AVX-512 MKL's products of matrices take much longer than those of
    oneDNN, which computes the convolutions anyway. torch hands float32 products to oneDNN only
    where they may be rounded to bf16. oneDNN does round where there is AMX, which these processors
    lack; a product that bf16 cannot hold tells. So no result's precision changes.

    The settings are the whole process's, so they last no longer than needed: `torch.compile`
    refuses to work with that of oneDNN.
    """
    if device.type == "cuda":
        with _precision(torch.backends.cudnn.conv, "ieee"):  # type: ignore[attr-defined]
            yield
    elif device.type == "cpu" and _multiplies_faster_by_onednn():
        with _precision(torch.backends.mkldnn.matmul, "bf16"):  # type: ignore[attr-defined]
            yield
    else:
        yield


@contextmanager
def rough_products(device: torch.device) -> Iterator[None]:
    """Let a GPU round the factors of float32 products of matrices to TF32, which is faster."""
    if device.type == "cuda":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
    else:
        yield


@contextmanager
def _precision(products: Any, precision: str) -> Iterator[None]:
    before = products.fp32_precision
    products.fp32_precision = precision
    try:
        yield
    finally:
        products.fp32_precision = before


@functools.cache
def _multiplies_faster_by_onednn() -> bool:
    can = torch.cpu.get_capabilities()
    if not str(can.get("cpu_name", "")).startswith("AMD") or not can.get("avx512_f"):
        return False
    with _precision(torch.backends.mkldnn.matmul, "bf16"):  # type: ignore[attr-defined]
        x = torch.full((64, 64), 1 + 2**-20)
        return torch.equal(x @ torch.eye(64), x)


def keep_freed_memory() -> None:
    """Ask the C library to keep the memory that this process frees, for its next step.

    A step frees and asks for the same large blocks again. glibc would give them back to the system
    in between, which then clears page after page anew. Nor does it set the smallest pieces aside
    then, through all of which it would go whenever a large one is freed. Elsewhere than with glibc
    nothing happens.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    most_set_aside, trim_threshold, mmap_max = 1, -1, -4  # malloc.h
    mallopt(most_set_aside, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)


def describe_environment(place: Place) -> dict[str, Any]:
    """Return what a run's numbers depend on beside its configuration, fit for JSON.

    Two runs are the same bit for bit only where all of this is.
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
