"""The figures of the tutorial: numbers alone, so that they serve a page in any language."""

from __future__ import annotations

import itertools
from typing import Any

from deepcnn.runs.log import events
from figures.logged import markdown, results, rounded, runs

CONVNET = "2026-12-01_cuda_convnet"
SHORT, LONG = "2026-11-21_tutorial_3000", "2026-11-21_tutorial_60000"
POINTS = (6_000, 18_000, 30_000, 45_000, 60_000)  # steps at which averages are left out
EVERY = 100  # steps from one loss that is compared to the next


def first_loss() -> str:
    """Return the parts of the tutorial's first loss, and their sum."""
    first = events(runs(SHORT)["seed-0"], "Stepped")[0]["losses"]
    *parts, total = (rounded(value) for value in first.values())
    return f"{' + '.join(parts)} = {total}"


def rises(kind: str) -> tuple[int, int]:
    """Return how often a loss rose from one hundred steps to the next, and of how many times."""
    steps = [e for e in events(runs(SHORT)["seed-0"], "Stepped") if e["step"] % EVERY == 0]
    values = [event[kind]["total_loss"] for event in steps]
    return sum(b > a for a, b in itertools.pairwise(values)), len(values) - 1


def averages_off() -> str:
    """Return the test accuracy with averaged and with raw parameters, and what is between them."""
    scored = events(runs(LONG)["seed-0"], "Evaluated")
    found = {(e["step"], e["averaged"]): e for e in scored if e["split"] == "test"}
    rows = []
    for step in POINTS:
        averaged, raw = (
            100 * found[step, kind]["correct"] / found[step, kind]["total"]
            for kind in (True, False)
        )
        percents = (f"{rounded(value)} %" for value in (averaged, raw))
        rows.append((f"{step:,}", *percents, rounded(averaged - raw)))
    return markdown(("step", "`--averaged`", "`--no-averaged`", "−"), rows)


def convnet() -> tuple[str, str]:
    """Return the test accuracy of a shortened cuda_convnet, from one view and from ten."""
    scored = [
        events(runs(CONVNET)[name], "Evaluated")[-1] for name in ("one_view/seed-0", "seed-0")
    ]
    one, ten = (f"{rounded(100 * found['correct'] / found['total'])} %" for found in scored)
    return one, ten


def first_step() -> str:
    """Return how long training waits for its queue, by what waits in it."""
    newest: dict[str, Any] = list(results("first_step").values())[-1]
    rows = []
    for share, found in newest["medians"].items():
        times = (f"{rounded(found[name])} s" for name in ("first batch", "hundredth batch"))
        rows.append((share, f"{round(50_000 * float(share)):,}", *times))
    return markdown(("`min_fraction_of_examples_in_queue`", "", "1", "100"), rows)


def two_towers() -> str:
    """Return the speed of two towers of 64 on two cores, to that of one device with 128."""
    medians = results("devices")["one_tower"]["medians"]
    return f"{rounded(medians['two towers']['fp32'] / medians['one device']['fp32'])} ×"


def slowest_feed() -> str:
    """Return the speed of training through the slowest feed, to that through the fastest."""
    result = list(results("feeds_training").values())[-1]
    speeds = result["medians"].values()
    return f"{rounded(min(speeds) / max(speeds))} ×"


def calibration_error(when: str) -> str:
    """Return how far probabilities of `quick` are from the truth, before or after a temperature."""
    return f"{rounded(100 * results('unsure')['']['figures'][f'calibration error {when}'], 1)} %"
