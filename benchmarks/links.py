"""Between two hosts: the exchange of gradients over links of several speeds.

    python benchmarks/links.py --out results/NAME.json          # needs root, for the hosts

The hosts are network namespaces, with one process of one thread on each. Measured are the time to
sum as many numbers as the tutorial network has parameters, and that of a training step of the
network at batch 128, with the gradients exchanged during the backward pass and after it. Cases take
turns, several times over; what is shown is the median over the rounds, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from devices import TRAIN, rates
from hosts import ADDRESSES, LINK, on, two_hosts

from deepcnn.devices import Place, describe_environment

PARAMETERS = 1_068_298  # of the tutorial network
LINKS = {"unshaped": None, "1 Gb/s": 1_000, "100 Mb/s": 100}


def torchrun(hosts: tuple[str, str], worker: list[str]) -> None:
    """Run one process on each of two hosts; raise if either fails."""
    running = []
    for i, host in enumerate(hosts):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        command += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "bench"]
        command += ["--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--local-addr", ADDRESSES[i]]
        command += ["--rdzv-conf", f"is_host={i == 0}"]  # both bear this machine's name
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": LINK, "OMP_NUM_THREADS": "1"}
        running.append(
            subprocess.Popen(
                on(host, [*command, *worker]),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
    errors = [process.communicate()[1].decode() for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("\n".join(errors))


def linked(megabits: float | None, steps: int) -> dict[str, float]:
    """Return milliseconds of an all-reduce, and of a step with and without overlap."""
    with tempfile.TemporaryDirectory() as folder, two_hosts(megabits) as hosts:
        out = Path(folder) / "seconds.json"
        torchrun(hosts, [__file__, "--sum", str(out)])
        found = {"all-reduce": 1000 * statistics.median(json.loads(out.read_text()))}
        for name, worker in (
            ("step", ["-m", "deepcnn"]),
            ("step without overlap", [__file__, "--one-bucket"]),
        ):
            run = Path(folder) / name.replace(" ", "-")
            case = [*TRAIN[2:], "--steps", str(steps), "--run-dir", str(run), "--threads", "1"]
            torchrun(hosts, [*worker, *case])
            found[name] = 1000 * 128 / rates(run)
    return found


def sum_gradients(out: Path, repeats: int = 30) -> None:
    """As one of several processes: time the sum of as many numbers as there are gradients."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    values = torch.ones(PARAMETERS)
    seconds = []
    for _ in range(repeats):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(values)
        seconds.append(time.perf_counter() - began)
    if dist.get_rank() == 0:
        out.write_text(json.dumps(seconds[5:]))
    dist.destroy_process_group()


def train_with_one_bucket(arguments: list[str]) -> None:
    """As one of several processes: train with all gradients in one bucket, full at the very end."""
    from deepcnn import cli
    from deepcnn.engines import processes

    plain = processes.DistributedDataParallel

    def one_bucket(*positional: object, **named: object) -> object:
        return plain(*positional, bucket_cap_mb=1000, init_sync=True, **named)

    processes.DistributedDataParallel = one_bucket
    sys.argv = ["deepcnn", *arguments]
    cli.main()


def main() -> None:
    """Measure, print and store."""
    if sys.argv[1:2] == ["--sum"]:
        sum_gradients(Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--one-bucket"]:
        train_with_one_bucket(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    exchange: dict[str, list[dict[str, float]]] = {name: [] for name in LINKS}
    for _ in range(options.rounds):
        for name, megabits in LINKS.items():
            found = linked(megabits, options.steps)
            exchange[name].append({what: round(value, 2) for what, value in found.items()})
    result = {
        "what": "between two hosts of one process and thread each: sum of 1,068,298 float32, and a "
        "step of the tutorial network, batch 128, fp32; milliseconds",
        "medians": {
            name: {what: statistics.median(f[what] for f in found) for what in found[0]}
            for name, found in exchange.items()
        },
        "all": exchange,
        "environment": describe_environment(Place.choose("cpu", "fp32")),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
