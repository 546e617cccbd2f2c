"""Measures deepcnn, and makes what documents and checks need of the measurements.

python benchmarks/run.py                   # lists all that can be run
python benchmarks/run.py NAME --help       # explains one
python benchmarks/run.py inputs --peer "tensorflow=COMMAND" --peer "grain=COMMAND"
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

# What can be run, and the module of each, which has either a `CASE`, whose contenders take turns,
# or `main(arguments) -> int`, explained by the first line of its docstring.
PROGRAMS = {
    "tutorial_training": "cases.tutorial_training",
    "prediction": "cases.prediction",
    "runtimes": "cases.runtimes",
    "first_answer": "cases.first_answer",
    "feeds_training": "cases.feeds_training",
    "first_step": "cases.first_step",
    "inputs": "cases.inputs",
    "orders": "cases.orders",
    "reading": "cases.reading",
    "reading_pictures": "cases.reading_pictures",
    "devices": "cases.devices",
    "links": "cases.links",
    "streaming_memory": "cases.streaming_memory",
    "streamed_million": "cases.streamed_million",
    "doctor_duplicates": "cases.doctor_duplicates",
    "unsure": "cases.unsure",
    "budgets": "cases.budgets",
    "start_from": "cases.start_from",
    "small_sets": "cases.small_sets",
    "doctor_labels": "cases.doctor_labels",
    "distortions": "cases.distortions",
    "optimizers": "cases.optimizers",
    "serve": "cases.serve",
    "sweep_parallel": "cases.sweep_parallel",
    "locally_connected": "cases.locally_connected",
    "gpu_speed": "cases.gpu_speed",
    "gpu_devices": "cases.gpu_devices",
    "faults": "faults.one_machine",
    "faults_of_machines": "faults.machines",
    "faults_of_kills": "faults.kills",
    "faults_of_power": "faults.power",
    "faults_of_two": "faults.two",
    "hostile_files": "faults.hostile",
    "fuzz": "faults.fuzz",
    "campaigns": "faults.campaigns",
    "faults_of_writing": "faults.writing",
    "faults_of_signals": "faults.signals",
    "damage": "faults.damage",
    "follow": "faults.follow",
    "soak": "faults.soak",
    "bits_under_load": "faults.bits",
    "mutants": "faults.mutants",
    "check": "cases.check",
    "same_bits": "cases.same_bits",
    "figures": "figures.documents",
}
# What these start themselves, in processes of their own: `run.py worker NAME …`.
WORKERS = {
    "answers": "workers.answers",
    "bits": "faults.bits_worker",
    "faults": "faults.worker",
    "load": "faults.load",
    "served_folder": "cases.streamed_million",
    "sum_gradients": "workers.sum_gradients",
    "train_with_one_bucket": "workers.train_with_one_bucket",
}


def main(arguments: list[str]) -> int:
    """List what can be run, or run it; return the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("\n".join(f"{name:<20}{title(module(PROGRAMS[name]))}" for name in PROGRAMS))
        return 0
    name, *rest = arguments
    if name == "worker" and rest:
        return int(module(WORKERS[rest[0]]).main(rest[1:]))
    if name not in PROGRAMS:
        print(f"run.py: expected one of {', '.join(PROGRAMS)}, found {name!r}", file=sys.stderr)
        return 2
    found = module(PROGRAMS[name])
    if hasattr(found, "CASE"):
        return int(module("tools.comparison").main(name, found.CASE, rest))
    return int(found.main(rest))


def module(name: str) -> ModuleType:
    """Import a module, only when it is asked for: some take a while."""
    return importlib.import_module(name)


def title(found: ModuleType) -> str:
    """Return what a program does, in a line."""
    if hasattr(found, "CASE"):
        return str(found.CASE.title())
    return (found.__doc__ or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
