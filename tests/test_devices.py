from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from deepcnn import devices
from deepcnn.devices import float32_products

CPU = torch.device("cpu")
AMD = {"cpu_name": "AMD EPYC", "avx512_f": True}
MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
CUDNN: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def new_answer() -> Iterator[None]:
    """Let each test ask anew how this processor multiplies."""
    devices._multiplies_faster_by_onednn.cache_clear()
    yield
    devices._multiplies_faster_by_onednn.cache_clear()


def test_float32_products_are_as_precise_as_others() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 8, 200, 200)
    with float32_products(CPU):
        found = torch.bmm(a, b)
    expected = torch.bmm(a.double(), b.double())
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


@pytest.mark.parametrize(
    ("processor", "setting"),
    [(AMD, "bf16"), (AMD | {"cpu_name": "Intel Xeon"}, "none"), ({"cpu_name": "AMD"}, "none")],
)
def test_onednn_multiplies_where_the_other_library_is_slow(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, Any], setting: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(torch, "equal", lambda *_: True)  # whatever this machine multiplies like
    before = MATMUL.fp32_precision
    with float32_products(CPU):
        assert MATMUL.fp32_precision == (setting if setting != "none" else before)
    assert MATMUL.fp32_precision == before
    torch.get_float32_matmul_precision()  # raises where the setting has stayed


def test_a_product_that_is_rounded_to_bf16_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMD)
    exact = torch.eye
    monkeypatch.setattr(torch, "eye", lambda n: exact(n) * (1 - 2**-9))
    before = MATMUL.fp32_precision
    with float32_products(CPU):
        assert MATMUL.fp32_precision == before


def test_the_settings_come_back_after_an_error() -> None:
    before = MATMUL.fp32_precision, CUDNN.fp32_precision
    for device in (CPU, torch.device("cuda")):
        with pytest.raises(KeyError), float32_products(device):
            raise KeyError
    assert (MATMUL.fp32_precision, CUDNN.fp32_precision) == before


def test_cudnn_does_not_round_float32() -> None:
    assert CUDNN.fp32_precision == "tf32"  # unless told otherwise
    with float32_products(torch.device("cuda")):
        assert CUDNN.fp32_precision == "ieee"
    assert CUDNN.fp32_precision == "tf32"
    assert torch.backends.cudnn.allow_tf32  # raises where only half of the setting came back
