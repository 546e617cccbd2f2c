"""Puts the figures of README.md and the pages of docs/ there from the committed logs.

    .venv/bin/python benchmarks/run.py figures            # writes them
    .venv/bin/python benchmarks/run.py figures --check    # fails and names what is not as made

A figure stands between `<!-- figures: NAME -->` and `<!-- /figures -->`, within a sentence or
around a table; `FIGURES` has the function that makes it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from deepcnn.runs.log import events
from figures import choices, faults, gpu, small_sets, speed, tutorial
from figures.logged import (
    ROOT,
    counted,
    duration,
    interval,
    link,
    markdown,
    record,
    results,
    rounded,
    runs,
)
from tools import program

DOCUMENTS = (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md")
PLACE = re.compile(r"<!-- figures: (\w+) -->(.*?)<!-- /figures -->", re.DOTALL)
QUICK = {"A": "2026-11-22_quick_wider", "B": "2026-11-26_quick_zen5", "C": "2026-11-25_quick_zen4"}
SPEEDRUN94 = {
    "A": "2026-11-22_speedrun94",
    "B": "2026-11-26_speedrun94_fourier",
    "C": "2026-11-25_speedrun94_zen4",
}
SPEEDRUN96 = {"B": "2026-11-27_speedrun96"}
TUTORIALS = {
    "2026-11-21_tutorial_3000": "A, fp32",
    "2026-11-21_tutorial_60000": "A, fp32",
    "2026-11-26_tutorial_60000_bf16": "B, bf16",
}
MACHINES = {"A": "fp32", "B": "bf16", "C": "bf16"}
COLUMNS = ("", *(f"{machine}, {precision}" for machine, precision in MACHINES.items()))


def told(names: dict[str, str], linked: bool = True) -> list[str]:
    """Return what the records of a preset say of each machine."""

    def cell(name: str) -> str:
        group = record(name)
        steps = events(runs(name)["seed-0"], "Started")[0]["steps"]
        more = f"; {steps:,} steps ([record](../records/{name}))" if linked else ""
        return f"{counted(group)}; {duration(group)}{more}"

    return [cell(names[machine]) if machine in names else "" for machine in MACHINES]


def accuracies() -> str:
    """Return the accuracies of the presets on each machine."""
    rows = [
        ("`quick`", *told(QUICK)),
        ("`speedrun94`, up to six views", *told(SPEEDRUN94)),
        ("`speedrun96`, up to six views", *told(SPEEDRUN96)),
    ]
    return markdown(COLUMNS, rows)


def tutorials() -> str:
    """Return the last accuracies of the tutorial's long trainings."""
    rows = []
    for name, machine in TUTORIALS.items():
        scored = events(runs(name)["seed-0"], "Evaluated")
        last = {e["averaged"]: e for e in scored if e["split"] == "test"}
        percents = (
            f"{rounded(100 * e['correct'] / e['total'])} % ({interval(e['correct'], e['total'])})"
            for e in (last[True], last[False])
        )
        group = record(name)
        time = f"{group.timed}: {group.seconds:,.0f} s"
        rows.append((f"[{last[True]['step']:,}](../records/{name})", machine, *percents, time))
    return markdown(("steps", "machine", "averaged parameters", "raw", "time"), rows)


def views_of_all() -> str:
    """Return B's figures with six views of all images."""
    group = record("2026-11-26_speedrun94_zen5")
    return f"{counted(group)}; {duration(group)}"


def unsure_as_right() -> str:
    """Return how many networks have as many right with six views of the unsure only."""
    right = [n["right of 10000"] for n in results("views_of_the_unsure")[""]["networks"]]
    return f"{sum(r['shifted'] == r['unsure'] for r in right)} of {len(right)} networks"


def quick_seconds() -> tuple[str, str]:
    """Return the least and the greatest of the machines' median times."""
    seconds = [record(name).seconds for name in QUICK.values()]
    return f"{min(seconds):.0f}", f"{max(seconds):.0f}"


def speedrun96() -> str:
    """Return the accuracy and the time of speedrun96 on B."""
    group = record(SPEEDRUN96["B"])
    seeds = f"an observation of {len(group.scores)} seeds"
    assert not group.has_mean
    return f"{group.accuracy()} in {group.seconds / 60:.0f} minutes on B, {seeds}"


def overview() -> str:
    """Return the figures of the README, on processors."""
    best = {machine: speed.PRECISIONS[machine][-1] for machine in MACHINES}
    rows = [
        ("`quick`: test accuracy; whole process", *told(QUICK, linked=False)),
        ("`speedrun94`, up to six views", *told(SPEEDRUN94, linked=False)),
        (
            "training the `tutorial` with distorted inputs, to TensorFlow 2.21 (fp32)",
            *(speed.to_tensorflow(speed.TRAINING[m], kind) for m, kind in best.items()),
        ),
        (
            "predicting batches of 256, `tutorial` and `quick`, to ONNX Runtime 1.31 (fp32)",
            *(
                f"{speed.faster(m, kind, 'tutorial')} and {speed.faster(m, kind, 'quick')}"
                for m, kind in best.items()
            ),
        ),
        (
            "one image, `tutorial`; ONNX Runtime",
            *(speed.one_image(m, kind, "tutorial") for m, kind in best.items()),
        ),
    ]
    return markdown(COLUMNS, rows)


def gpu_overview() -> str:
    """Return the figures of the README, on a GPU."""
    rows = []
    steps = results("gpu_tutorial")["h200"]["config"]["steps"]
    for what, *where in (
        (f"the whole `tutorial`, {steps:,} steps", "gpu_tutorial", "h200"),
        ("`speedrun94_gpu`", *gpu.BESIDE),
        ("hiverge's cifar10-speedrun beside it", *gpu.BESIDE, "hiverge"),
    ):
        group = gpu.runs_of(*where)
        rows.append((what, counted(group), f"{gpu.mean_seconds(group):.3g} s"))
    return markdown(("on an NVIDIA H200, compiled before", "test accuracy", "mean time"), rows)


def tutorial_on_a() -> str:
    """Return what the tutorial came to on A."""
    return record("2026-11-21_tutorial_60000").accuracy()


def unsure() -> str:
    """Return how well `quick` knows what it does not know."""
    found = results("unsure")[""]["figures"]

    def percent(name: str) -> str:
        return f"{rounded(100 * found[name], 1)} %"

    kinds = ("Fashion-MNIST", "noise", "blobs", "letters")
    rows = [
        ("expected calibration error before", percent("calibration error before"), ""),
        ("after, cross-fitted", percent("calibration error after"), ""),
        ("test images called unsure, at 2 % error", percent("refused"), ""),
        ("of these unknown", percent("called unknown"), ""),
        *(
            (
                f"{kind}: called unsure; unknown among them",
                f"{percent(f'{kind}: unsure')}; {percent(f'{kind}: unknown')}",
                percent(f"{kind}: unsure by softmax alone"),
            )
            for kind in kinds
        ),
    ]
    return markdown((f"`quick` on CIFAR-10 {link('unsure')}", "", "softmax alone"), rows)


def near_duplicates() -> str:
    """Return how many of the listed near duplicates of CIFAR-10's test images the doctor finds."""
    figures = list(results("doctor_duplicates").values())[-1]["figures"]
    found, listed = figures["found near"], figures["listed near"]
    return f"{found} of {listed}, {rounded(100 * found / listed)} % ({interval(found, listed)})"


def planted_labels() -> str:
    """Return how well the doctor finds labels that were made wrong."""
    rows = []
    for found in sorted(results("doctor_labels").values(), key=lambda r: (r["data"], r["share"])):
        figures = found["figures"]
        if "planted" in figures:
            kinds = ("recall", "precision", "average precision")
            values = (rounded(figures[f"planted: {kind}"]) for kind in kinds)
            first = str(figures["planted: wrong of the first 50"])
            planted = f"{figures['planted']:,} ({found['share']:.0%})".replace("%)", " %)")
            rows.append((found["data"], planted, f"{figures['suspects']:,}", first, *values))
    columns = (f"data ({link('doctor_labels')})", "made wrong", "listed", "wrong of the first 50")
    return markdown((*columns, "recall", "precision", "average precision"), rows)


FIGURES: dict[str, Callable[[], str]] = {
    "quick_seconds": lambda: " to ".join(quick_seconds()),
    "quick_least": lambda: quick_seconds()[0],
    "quick_most": lambda: quick_seconds()[1],
    "speedrun96": speedrun96,
    "overview": overview,
    "gpu_overview": gpu_overview,
    "tutorial_on_a": tutorial_on_a,
    "distorting": lambda: speed.inputs("preloaded memory", "tensorflow memory")[2],
    "accuracies": accuracies,
    "tutorials": tutorials,
    "views_of_all": views_of_all,
    "unsure_as_right": unsure_as_right,
    "near_duplicates": near_duplicates,
    "planted_labels": planted_labels,
    "training": speed.training,
    "training_runs": speed.training_runs,
    "fourier_step": speed.fourier_step,
    "limit_on_c": lambda: speed.limit("zen4"),
    "layers_on_c": lambda: speed.layers("zen4"),
    "limit_on_b": lambda: speed.limit("zen5_fourier"),
    "layers_on_b": lambda: speed.layers("zen5_fourier"),
    "conv2_in_tiles": speed.conv2_in_tiles,
    "gpu": gpu.gpu,
    "hiverge_ratio": gpu.hiverge_ratio,
    "gpu_steps": gpu.gpu_steps,
    "tutorial_kernels": gpu.tutorial_kernels,
    "pooling_back": gpu.pooling_back,
    "gpu_settings": gpu.gpu_settings,
    "engines_on_a_gpu": lambda: gpu.engines("gpu_devices", "h200_deterministic"),
    "engines_on_a_processor": lambda: gpu.engines("engines_on_cpu", ""),
    "predicting": speed.predicting,
    "predicting_before": speed.predicting_before,
    "agreement": speed.agreement,
    "runtimes": speed.runtimes,
    "share_of_torch": speed.share_of_torch,
    "data": speed.data,
    "reading_pictures": speed.reading_pictures,
    "devices": speed.devices,
    "unsure": unsure,
    "fashion": lambda: f"{counted(record(choices.FASHION))}; {duration(record(choices.FASHION))}",
    "fashion_tried": choices.fashion_tried,
    "start_from": choices.start_from,
    "fashion_on_the_test_set": choices.fashion_on_the_test_set,
    "campaigns": faults.campaigns,
    "small_sets": small_sets.compared,
    "small_sets_tried": small_sets.tried,
    "calibration_before": lambda: tutorial.calibration_error("before"),
    "calibration_after": lambda: tutorial.calibration_error("after"),
    "first_loss": tutorial.first_loss,
    "rises_raw": lambda: str(tutorial.rises("losses")[0]),
    "rises_averaged": lambda: str(tutorial.rises("averages")[0]),
    "rises_counted": lambda: str(tutorial.rises("losses")[1]),
    "convnet_one": lambda: tutorial.convnet()[0],
    "convnet_ten": lambda: tutorial.convnet()[1],
    "averages_off": tutorial.averages_off,
    "first_step": tutorial.first_step,
    "two_towers": tutorial.two_towers,
    "slowest_feed": tutorial.slowest_feed,
}


def filled(text: str, up: str = "../") -> tuple[str, list[str]]:
    """Return a document with its figures made anew, and the names of those that were others.

    `up`: the way from the document to the repository.
    """
    stale = []

    def made(found: re.Match[str]) -> str:
        name, before = found.groups()
        figure = FIGURES[name]().replace("](../", f"]({up}")
        figure = f"\n\n{figure}\n\n" if "\n" in figure else figure
        if figure != before:
            stale.append(name)
        return f"<!-- figures: {name} -->{figure}<!-- /figures -->"

    return PLACE.sub(made, text), stale


def main(arguments: list[str]) -> int:
    """Write all figures, or check them."""
    parser = program.parser("figures", __doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail instead")
    check, wrong = parser.parse_args(arguments).check, []
    for path in DOCUMENTS:
        text, stale = filled(path.read_text(), "../" * (len(path.relative_to(ROOT).parts) - 1))
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in stale]
        if stale and not check:
            path.write_text(text)
    if check and wrong:
        sys.exit(
            "not as made from the logs (python benchmarks/run.py figures makes it):\n"
            + "\n".join(wrong)
        )
    return 0
