"""The abilities of this machine's processor and GPU, and their settings."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None  # torch for GPUs brings it along


@functools.cache
def multiplies_bf16() -> bool:
    """Tell whether this processor multiplies bf16 itself."""
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def kernels_are_dear(device: torch.device) -> bool:
    """Tell whether another kernel costs more than another pass over a network's parameters."""
    return device.type != "cpu"


def runs_triton(x: torch.Tensor) -> bool:
    """Tell whether functions written for Triton can be used; they compute in float32."""
    return HAS_TRITON and x.device.type == "cuda" and x.dtype != torch.float64


def is_on_processor(x: torch.Tensor) -> bool:
    """Tell whether functions made for processors can be used; they cannot be traced."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def onednn_computes(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN is available and computes with this type."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    bf16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bf16)


def keep_freed_memory() -> None:
    """Ask the C library to keep the memory that this process frees, for its next step.

    Each step frees and requests the same large blocks. glibc would give them back to the system in
    between, which then clears every page again. With this setting, glibc also does not set the
    smallest pieces aside; it would go through all of them whenever a large block is freed. Without
    glibc, nothing happens.
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


class _Setting:
    """A setting of the whole process that several threads may need at the same time.

    It is changed while any thread is inside `needed`, and restored when the last one leaves.
    """

    def __init__(self, read: Callable[[], str], write: Callable[[str], None], value: str) -> None:
        self._read, self._write, self._value = read, write, value
        self._changed = threading.Condition(threading.RLock())
        self._users = 0
        self._inside = threading.local()  # how deep this thread is in `needed`
        self._waiting = 0  # who wants it left alone: new users let them go first
        self._before = ""

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Change the setting while the context lasts."""
        depth: int = getattr(self._inside, "depth", 0)
        with self._changed:
            self._changed.wait_for(lambda: depth or not self._waiting)
            if self._users == 0:
                self._before = self._read()
                self._write(self._value)
            self._users += 1
        self._inside.depth = depth + 1
        try:
            yield
        finally:
            self._inside.depth = depth
            with self._changed:
                self._users -= 1
                if self._users == 0:
                    self._write(self._before)
                    self._changed.notify_all()

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """Wait until no thread needs the setting; let none change it while the context lasts."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._users == 0)
                yield
            finally:
                self._waiting -= 1
                self._changed.notify_all()


def _precision_of(products: Any, value: str) -> _Setting:
    return _Setting(
        lambda: str(products.fp32_precision),
        lambda precision: setattr(products, "fp32_precision", precision),
        value,
    )


_CONVOLUTIONS_ON_GPU = _precision_of(torch.backends.cudnn.conv, "ieee")  # type: ignore[attr-defined]
_PRODUCTS_BY_ONEDNN = _precision_of(torch.backends.mkldnn.matmul, "bf16")  # type: ignore[attr-defined]
_ROUGH_PRODUCTS = _Setting(
    torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high"
)


def float32_products(device: torch.device) -> AbstractContextManager[None]:
    """Multiply float32 in full precision, and fast.

    On NVIDIA's GPUs since Ampere, torch rounds the factors of cuDNN's convolutions to TF32, ten
    bits of the fraction. Here float32 was asked for; for less precision there is bf16.

    On AMD's processors with AVX-512, MKL's products of matrices take much longer than those of
    oneDNN, which computes the convolutions anyway. torch passes float32 products to oneDNN only if
    they may be rounded to bf16. oneDNN rounds only with AMX, which these processors do not have. A
    product that bf16 cannot hold shows whether it rounds. So no result's precision changes.

    The settings apply to the whole process. So they last no longer than needed, at most a step,
    since `torch.compile` refuses to work with the one for oneDNN. Threads that need a setting share
    it.
    """
    if device.type == "cuda":
        return _CONVOLUTIONS_ON_GPU.needed()
    if device.type == "cpu" and multiplies_faster_by_onednn():
        return _PRODUCTS_BY_ONEDNN.needed()
    return nullcontext()


def plain_products(device: torch.device) -> AbstractContextManager[None]:
    """Keep `float32_products` of other threads away from what is computed before a training."""
    return _PRODUCTS_BY_ONEDNN.left_alone() if device.type == "cpu" else nullcontext()


def rough_products(device: torch.device) -> AbstractContextManager[None]:
    """Let a GPU round the factors of float32 products of matrices to TF32, which is faster."""
    return _ROUGH_PRODUCTS.needed() if device.type == "cuda" else nullcontext()


@functools.cache
def multiplies_faster_by_onednn() -> bool:
    """Tell whether oneDNN's products of float32 are faster here and are not rounded."""
    can = torch.cpu.get_capabilities()
    if not str(can.get("cpu_name", "")).startswith("AMD") or not can.get("avx512_f"):
        return False
    with _PRODUCTS_BY_ONEDNN.needed():
        x = torch.full((64, 64), 1 + 2**-20)
        return torch.equal(x @ torch.eye(64), x)
