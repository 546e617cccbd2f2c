"""Measure how fast this machine trains and scores."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepcnn.console import console

if TYPE_CHECKING:
    from deepcnn.bench import Pass, Report


@dataclass(frozen=True)
class Options:
    """Measure how fast this machine distorts, trains and scores, in about a minute.

    The data are CIFAR-10's where they are on disk, else synthetic ones of the same shape.
    """

    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(options: Options) -> int:
    """Measure, and print what was found."""
    from deepcnn import bench

    if options.json:
        report = bench.measure(options.device, options.threads)
        print(json.dumps(dataclasses.asdict(report), indent=2))
        return 0
    with console(as_json=False) as tell:
        _print_report(bench.measure(options.device, options.threads, emit=tell))
    return 0


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    about = report.environment
    rates = Table("images/s", report.data)
    rates.columns[1].justify = "right"
    for name, rate in report.rates.items():
        rates.add_row(name, f"{rate:,.0f}")
    layers = Table("layer", "forward", "of limit", "backward", "of limit")
    for column in layers.columns[1:]:
        column.justify = "right"
    for layer in report.layers:
        layers.add_row(layer.name, *_cells(layer.forward), *_cells(layer.backward))
    limits = report.limits
    terminal = Console(highlight=False)
    terminal.print(
        f"{about['hardware']}, {about['device']} in {about['precision']} with {about['threads']} "
        f"of {about['cores']} threads; torch {about['torch']}",
        rates,
        layers,
        f"The limit, {limits.best:,.0f} GFLOP/s, is the better of a large matrix product "
        f"({limits.matrix_product:,.0f}) and torch's 5×5 convolution ({limits.convolution:,.0f}).",
        "Operations are those of the definition: an algorithm that needs fewer may exceed 100 %.",
        sep="\n",
    )


def _cells(cost: Pass) -> tuple[str, str]:
    share = "" if cost.share is None else f"{100 * cost.share:.0f} %"
    return f"{cost.milliseconds:.2f} ms", share
