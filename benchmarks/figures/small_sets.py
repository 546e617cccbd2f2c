"""Small sets: what was tried on validation splits, and what the recipe came to beside others."""

from __future__ import annotations

from typing import Any

from figures.logged import interval, markdown, results, rounded

SETS = {
    "digits": "digits 8×8",
    "fashion": "Fashion-MNIST",
    "fashion100": "Fashion-MNIST, 100 of each class",
    "cifar10x10": "CIFAR-10, 10 of each class",
    "cifar10x100": "CIFAR-10, 100 of each class",
    "cifar10x1000": "CIFAR-10, 1,000 of each class",
    "hands": "signs of hands",
    "shapes": "drawn shapes",
    "characters": "136 written characters",
    "cells": "blood cells",
    "flowers": "flowers",
    "cars": "colours of cars",
}
PIXELS = ("logistic regression", "support vector machine", "nearest neighbours")


def tried() -> str:
    """Return what each setting that was tried came to on a validation split."""
    order = [*SETS]
    runs = sorted(results("small_sets")["choices"]["tried"], key=lambda t: order.index(t["set"]))
    rows = [
        (
            SETS[one["set"]],
            f"{one['epochs']:g}",
            _changes(one["changes"]),
            *_outcome(one),
        )
        for one in runs
    ]
    columns = ("set", "epochs", "changed", "right of the validation split", "seconds of one core")
    return markdown(columns, rows)


def compared() -> str:
    """Return what the recipe and raw pixels came to on the test splits."""
    found = results("small_sets")
    pixels = found["raw pixels"]["figures"]
    rows = []
    for name in SETS:
        if name in found and name in pixels:
            others = pixels[name]
            alone = [_percent(others[method]["test"], others["test"]) for method in PIXELS]
            ours = _by_the_recipe(found[name]["figures"])
            rows.append((SETS[name], f"{others['train']:,}", f"{others['test']:,}", ours, *alone))
    columns = ("set", "training", "test", "by the recipe", *PIXELS)
    return markdown(columns, rows)


def _by_the_recipe(seeds: list[dict[str, int]]) -> str:
    """Return the accuracy of one seed with its interval, or what several span."""
    if len(seeds) == 1:
        right, of = seeds[0]["right"], seeds[0]["of"]
        return f"{_percent(right, of)} ({interval(right, of)})"
    percents = [rounded(100 * seed["right"] / seed["of"]) for seed in seeds]
    return f"{min(percents, key=float)} to {max(percents, key=float)} %, n = {len(seeds)}"


def _outcome(one: dict[str, Any]) -> tuple[str, str]:
    if "failed" in one:
        return one["failed"], ""
    return _percent(one["right"], one["of"]), f"{one['cpu seconds']:.0f}"


def _percent(right: int, of: int) -> str:
    return f"{rounded(100 * right / of)} %"


def _changes(changes: dict[str, Any]) -> str:
    told = []
    for name, value in changes.items():
        values = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        told.append(f"`{name.replace('_', '-')} {values}`")
    return ", ".join(told) or "nothing"
