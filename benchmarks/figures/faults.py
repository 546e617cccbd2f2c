"""Campaigns of faults: how many cases of each were tried in full, and how many failed."""

from __future__ import annotations

from typing import Any

from deepcnn.runs.log import read_log
from figures.logged import BENCHMARKS, link, markdown

NAMES = {
    "faults_of_kills": "kills at every instant, over all feeds, towers, processes, fp32 and bf16",
    "faults_of_power": "states of the disk after a power cut",
    "faults_of_two": "two that train in one directory, locks of any kind",
    "faults_of_writing": "a full disk, quota, read-only or failing disk, at every call",
    "faults_of_signals": "signals at random times",
    "damage": "damaged checkpoints and files of a run",
    "hostile_files": "hostile files",
    "bits_under_load": "trainings beside a heavy load, compared bit by bit",
    "follow": "evaluations that follow a training",
    "soak": "training, following and serving at once",
}


# Results of one day are in the order of their remarks; of these two this is the later one.
LATER = "a scoring every tenth of a second"


def campaigns() -> str:
    """Return a row for each campaign: its newest full run."""
    newest: dict[str, dict[str, Any]] = {}
    log = read_log(BENCHMARKS / "results" / "campaigns.jsonl")
    for result in sorted(log, key=lambda result: (result["date"], result["remark"] == LATER)):
        if result["what"].endswith("full"):
            newest |= {each["name"]: each for each in result["campaigns"]}
    rows = [
        (
            NAMES[name],
            f"{each['cases']:,}",
            f"{each['failed']:,}",
            f"{each['kills']:,}; {each['kills_inside_a_save']:,}" if each["kills"] else "",
            f"{each['seconds']:,.0f} s",
        )
        for name in NAMES
        if (each := newest.get(name))
    ]
    columns = (link("campaigns"), "cases", "failed", "kills; inside a save", "time")
    return markdown(columns, rows)
