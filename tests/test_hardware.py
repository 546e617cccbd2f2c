"""What the processor can do, and settings of the whole process that threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from deepcnn import hardware
from deepcnn.hardware import float32_products, plain_products, rough_products
from tests.helpers.tiny import CPU

AMD = {"cpu_name": "AMD EPYC", "avx512_f": True}
GPU = torch.device("cuda")
MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
CUDNN: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
PATIENCE = 20.0  # seconds for what another thread does at once


@pytest.fixture(autouse=True)
def new_answer() -> Iterator[None]:
    """Let each test ask anew how this processor multiplies."""
    ask = hardware.multiplies_faster_by_onednn  # a test may put another one in its place
    ask.cache_clear()
    yield
    ask.cache_clear()


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be a processor on which oneDNN multiplies float32."""
    monkeypatch.setattr(hardware, "multiplies_faster_by_onednn", lambda: True)


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
    for device in (CPU, GPU):
        with pytest.raises(KeyError), float32_products(device):
            raise KeyError
    assert (MATMUL.fp32_precision, CUDNN.fp32_precision) == before


def test_cudnn_does_not_round_float32() -> None:
    assert CUDNN.fp32_precision == "tf32"  # unless told otherwise
    with float32_products(GPU):
        assert CUDNN.fp32_precision == "ieee"
    assert CUDNN.fp32_precision == "tf32"
    assert torch.backends.cudnn.allow_tf32  # raises where only half of the setting came back


def test_only_where_roughness_is_asked_for_a_gpu_rounds_factors() -> None:
    before = torch.get_float32_matmul_precision()
    with rough_products(CPU):
        assert torch.get_float32_matmul_precision() == before
    with rough_products(GPU):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.usefixtures("by_onednn")
def test_threads_share_a_setting_until_the_last_of_them_leaves() -> None:
    """The second enters and leaves within the first, then enters again and leaves after it."""
    before = MATMUL.fp32_precision
    entered, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def second() -> None:
        with float32_products(CPU):
            pass
        seen.append(MATMUL.fp32_precision)
        with float32_products(CPU):
            entered.set()
            assert go.wait(PATIENCE)
            seen.append(MATMUL.fp32_precision)

    with ThreadPoolExecutor(1) as pool:
        with float32_products(CPU):
            running = pool.submit(second)
            assert entered.wait(PATIENCE)
            assert seen == ["bf16"], "the first still needs it"
        go.set()
        running.result(PATIENCE)
    assert seen == ["bf16", "bf16"], "the second still needed it"
    assert MATMUL.fp32_precision == before


@pytest.mark.usefixtures("by_onednn")
def test_what_is_computed_once_waits_for_a_setting_that_is_not_changed_meanwhile() -> None:
    before = MATMUL.fp32_precision
    seen: list[str] = []
    inside, leave, wanted = threading.Event(), threading.Event(), threading.Event()

    def once() -> None:
        wanted.set()
        with plain_products(CPU):
            seen.append(f"once {MATMUL.fp32_precision}")
            inside.set()
            assert leave.wait(PATIENCE)
            seen.append(f"still {MATMUL.fp32_precision}")

    def needs() -> None:
        with float32_products(CPU):
            seen.append(f"then {MATMUL.fp32_precision}")

    with ThreadPoolExecutor(2) as pool:
        with float32_products(CPU):
            first = pool.submit(once)
            assert wanted.wait(PATIENCE)
            time.sleep(0.1)
            assert not inside.is_set(), "somebody needs the setting"
        assert inside.wait(PATIENCE)
        second = pool.submit(needs)
        time.sleep(0.1)
        assert seen == [f"once {before}"]
        leave.set()
        first.result(PATIENCE)
        second.result(PATIENCE)
    assert seen == [f"once {before}", f"still {before}", "then bf16"]
    assert MATMUL.fp32_precision == before


@pytest.mark.usefixtures("by_onednn")
def test_who_wants_it_left_alone_gets_a_turn_among_many_who_need_it() -> None:
    """Threads whose needs overlap all the time would else keep another one waiting for ever."""
    before = MATMUL.fp32_precision
    got, wanted, over = threading.Event(), threading.Event(), threading.Event()
    entered = threading.Semaphore(0)

    def once() -> None:
        wanted.set()
        with plain_products(CPU):
            got.set()
            assert MATMUL.fp32_precision == before

    def newcomer() -> None:
        with float32_products(CPU):
            entered.release()
            assert over.wait(PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        with float32_products(CPU):
            first = pool.submit(once)
            assert wanted.wait(PATIENCE)
            time.sleep(0.1)
            with float32_products(CPU):  # who is inside already does not wait for its own turn
                assert MATMUL.fp32_precision == "bf16"
            second = pool.submit(newcomer)
            assert not entered.acquire(timeout=0.2), "a new one lets the waiting go first"
        assert got.wait(PATIENCE)
        assert entered.acquire(timeout=PATIENCE)
        over.set()
        first.result(PATIENCE)
        second.result(PATIENCE)
    assert MATMUL.fp32_precision == before
