"""Measure how fast this machine trains, scores and answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepcnn.cli.importing import importing
from deepcnn.console import console, say_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from deepcnn.bench import Pass, Report
    from deepcnn.inference.speed import Answering


@dataclass(frozen=True)
class Options:
    """Measure how fast this machine distorts, trains, scores and answers, in about two minutes.

    It uses CIFAR-10 if it is on disk, else synthetic data of the same shape. It measures answers by
    torch and by all runtimes that are installed.
    """

    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    threads: int | None = None
    """Processor threads; None: torch's choice."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(options: Options) -> int:
    """Measure, and print what was found."""
    with importing():
        from deepcnn import bench
        from deepcnn.inference import runtimes
        from deepcnn.inference.speed import otherwise

    if options.json:
        report = bench.measure(options.device, options.threads)
        more = {"auto": runtimes.AUTO, "otherwise": otherwise(report.answering)}
        say_json(dataclasses.asdict(report) | more, indent=2)
        return 0
    with console(as_json=False) as tell:
        _print_report(bench.measure(options.device, options.threads, emit=tell))
    return 0


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from deepcnn.inference import runtimes
    from deepcnn.inference.speed import MANY, otherwise

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
        _answers(report.answering),
        "Answers: the first after a process has started, one image alone, and images a second "
        f"where {MANY} are asked about together.",
        f"{runtimes.described()}.",
        *(f"{line}." for line in otherwise(report.answering)),
        layers,
        f"The limit, {limits.best:,.0f} GFLOP/s, is the better of a large matrix product "
        f"({limits.matrix_product:,.0f}) and torch's 5×5 convolution ({limits.convolution:,.0f}).",
        "Operations are those of the definition: an algorithm that needs fewer may exceed 100 %.",
        sep="\n",
    )


def _cells(cost: Pass) -> tuple[str, str]:
    share = "" if cost.share is None else f"{100 * cost.share:.0f} %"
    return f"{cost.milliseconds:.2f} ms", share


def _answers(answering: Sequence[Answering]) -> Table:
    """Return a table of how fast each runtime answers."""
    from rich.table import Table

    table = Table("answers by", "in", "first")
    for name in answering[0].speeds:
        table.add_column(f"{name}: one")
        table.add_column("many/s")
    for column in table.columns[2:]:
        column.justify = "right"
    for each in answering:
        cells = [each.runtime, each.precision, f"{each.start:.2f} s"]
        for speed in each.speeds.values():
            cells += [f"{speed.one:.2f} ms", f"{speed.many:,.0f}"]
        table.add_row(*cells)
    return table
