"""How certain a counted share is."""

from __future__ import annotations

import math

Z = 1.959963984540054  # standard deviations of the normal distribution that hold 95 %


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, counted as `correct` of `total`.

    (Wilson: "Probable inference, the law of succession, and statistical inference", 1927.) It is
    never outside 0 to 1, and it has the right width even for small counts.
    """
    if total < 1:
        return 0.0, 1.0
    share = correct / total
    middle = share + Z**2 / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z**2 / (4 * total**2))
    scale = 1 + Z**2 / total
    low = (middle - spread) / scale if correct else 0.0  # exactly, whatever is rounded
    high = (middle + spread) / scale if correct < total else 1.0
    return low, high


def interval(correct: int, total: int) -> str:
    """Return the 95 % interval of a share in percent: (86.0 to 87.4); "" if nothing was counted."""
    low, high = wilson(correct, total)
    return f"({100 * low:.1f} to {100 * high:.1f})" if total else ""


def described(correct: int, total: int, what: str) -> str:
    """Return an accuracy in words: 86.70 % (8,670 of 10,000 test images, 95 % interval …)."""
    low, high = wilson(correct, total)
    return (
        f"{100 * correct / total:.2f} % ({correct:,} of {total:,} {what}, 95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f})"
    )
