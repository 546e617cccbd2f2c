"""Figures of a GPU."""

from __future__ import annotations

import json
import statistics

from figures.logged import Group, Score, counted, link, markdown, results, rounded

TEST_IMAGES = 10_000  # of CIFAR-10
BESIDE = ("gpu_speedrun94", "h200_beside_hiverge")
WHOLE = "`tutorial`, {steps:,} steps at batch {batch_size}, summaries on"
FAST = "`speedrun94_gpu`, {steps:,} steps at batch {batch_size}, `--compile`, over six views"
OTHER = "hiverge's cifar10-speedrun as published, but without its pauses, right after it"
BEFORE = "`speedrun94_gpu` before, {steps:,} steps, other settings, not compiled"
RATES = {
    "muon_learning_rate": 0.16,
    "head_learning_rate": 480.0,
    "momentum": 0.8,
    "weight_decay": 0.001,
    "learning_rate": 45.0,
}
SETTINGS = (
    {"steps": 405},
    RATES | {"steps": 405},
    RATES | {"steps": 405, "freeze": [["stem", 0.2]]},
    {"steps": 450},
)


def runs_of(case: str, remark: str, program: str = "deepcnn") -> Group:
    """Return a program's runs on a GPU."""
    found = results(case)[remark]["results"][program]
    scores = [
        Score("", "test", round(run["accuracy"] * TEST_IMAGES), TEST_IMAGES, run["seconds"], "")
        for run in found
    ]
    return Group(program, scores)


def mean_seconds(group: Group) -> float:
    """Return the mean time of runs."""
    return statistics.mean(score.seconds for score in group.scores)


def gpu() -> str:
    """Return what a GPU was measured at."""
    ours = results(BESIDE[0])[BESIDE[1]]["results"]["deepcnn"]
    saving = statistics.mean(run["saving"] for run in ours)
    rows = []
    for what, case, remark, program, time in (
        (f"{WHOLE}, `--compile`", "gpu_tutorial", "h200", "deepcnn", "{:.1f} s"),
        ("the same, not compiled", "gpu_tutorial", "h200_not_compiled", "deepcnn", "{:.1f} s"),
        (FAST, *BESIDE, "deepcnn", f"{{:.3f}} s, and {saving:.2f} s for the checkpoint"),
        (OTHER, *BESIDE, "hiverge", "{:.3f} s"),
        (BEFORE, "gpu_speedrun94", "h200", "deepcnn", "{:.2f} s, the checkpoint in it"),
    ):
        group = runs_of(case, remark, program)
        what_it_was = what.format(**results(case)[remark]["config"])
        seconds = time.format(mean_seconds(group))
        rows.append((what_it_was, counted(group), seconds, link(case, remark)))
    return markdown(("what", "test accuracy", "mean time", ""), rows)


def hiverge_ratio() -> str:
    """Return hiverge's time by ours."""
    summaries = results("gpu_speedrun94")["h200_beside_hiverge"]["summaries"]
    return f"{summaries['hiverge']['mean seconds'] / summaries['deepcnn']['mean seconds']:.2f}"


def gpu_steps() -> str:
    """Return how long steps took on a GPU while they were watched, and their kernels."""
    rows = []
    for case, remark, what in (
        ("gpu_tutorial", "h200", "`tutorial`, compiled"),
        (
            "gpu_speedrun94",
            "h200_beside_hiverge",
            "`speedrun94_gpu`, 24 x 24, with our own functions between the convolutions",
        ),
    ):
        watched = results(case)[remark]["profile"]
        ms = 1000 * watched["seconds a step"]
        kernels = ms * (1 - watched["gaps"])
        rows.append((what, f"{ms:.2f}", f"{kernels:.2f}", link(case, remark)))
    for watched in results("gpu_speedrun94")["h200_profiles"]["profiles"]:
        if watched["what"].endswith("compiled, at eac44cf"):
            what = f"`speedrun94_gpu`, {watched['what'].partition(',')[0]}, compiled"
            step, kernels = (rounded(watched[key]) for key in ("ms a step", "kernels, ms a step"))
            rows.append((what, step, kernels, link("gpu_speedrun94", "h200_profiles")))
    return markdown(("a step of", "ms", "of it in kernels, ms", ""), rows)


def tutorial_kernels() -> str:
    """Return the times of the tutorial's four longest kernels."""
    most = results("gpu_tutorial")["h200"]["profile"]["most"][:4]
    first, *rest, last = (f"{1e6 * kernel['seconds a step']:.0f}" for kernel in most)
    return f"{', '.join([first, *rest])} and {last} µs"


def pooling_back() -> str:
    """Return the time of the kernels that lead back through pooling and normalization."""
    profiles = results("gpu_speedrun94")["h200_profiles"]["profiles"]
    (watched,) = (p for p in profiles if p["what"] == "32 x 32, compiled, at eac44cf")
    name = "max_pool2d_with_indices_backward_native_batch_norm_backward"
    found = sum(kernel["us a step"] for kernel in watched["most"] if name in kernel["name"])
    return f"{found / 1000:.2f} ms"


def gpu_settings() -> str:
    """Return some of the settings that were tried on a validation split."""
    rows = []
    for run in results("gpu_speedrun94")["h200_settings"]["results"]:
        if run["changed"] in SETTINGS:
            changed, found = dict(run["changed"]), run["accuracies"]
            steps = f"{changed.pop('steps')}"
            changes = ", ".join(f"`{name}` {json.dumps(value)}" for name, value in changed.items())
            spread = f"{100 * min(found):.2f} to {100 * max(found):.2f} %"
            seconds = f"{rounded(run['training seconds'])} s"
            rows.append((steps, changes, f"{len(found)}", spread, seconds))
    return markdown(("steps", "changed", "n", "validation accuracy", "training"), rows)


def engines(case: str, remark: str) -> str:
    """Return by how much each engine's parameters differ from those of one device."""
    rows = []
    for name, found in results(case)[remark]["found"].items():
        largest = found["largest difference"]
        rows.append((name, f"{largest:.2e}".replace("e-0", "e-") if largest else "0"))
    return markdown(("engine", "largest difference"), rows)
