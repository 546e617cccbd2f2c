"""What dividing a step costs: towers and processes against one device, and the exchange itself.

    python benchmarks/devices.py --out results/NAME.json          # needs root for the links

Trains the tutorial network at the same batch of 128 on one device, in two towers and in two
processes of 64 (an exercise that TensorFlow's tutorial sets its readers), and through the machinery
of towers and processes with one device only, which shows its overhead alone. Then, between two
hosts made of network namespaces with links of several speeds: the time to sum the gradients of the
network, and the time of a training step, with the gradients exchanged during the backward pass and
after it. Cases take turns, several times over; a figure is the median over the groups of steps of a
fresh process after a warm-up, and what is shown is the median over the rounds.
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

from hosts import ADDRESSES, LINK, on, two_hosts

WARM_UP = 20  # steps
PARAMETERS = 1_068_298  # of the tutorial network
TRAIN = ["-m", "deepcnn", "train", "tutorial", "--summary-every", "0", "--save-every", "100000"]
DIVIDED = {
    "one device": [],
    "one tower": ["--towers", "1"],
    "two towers": ["--towers", "2"],
    "one process": ["--devices", "1"],
    "two processes": ["--devices", "2"],
}
LINKS = {"unshaped": None, "10 Gb/s": 10_000, "1 Gb/s": 1_000, "100 Mb/s": 100}


def rates(run: Path) -> float:
    """Return the median images per second of a run, after the warm-up."""
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return statistics.median(
        e["examples_per_second"] for e in events if e["event"] == "Stepped" and e["step"] > WARM_UP
    )


def one_machine(case: list[str], steps: int) -> tuple[float, dict[str, object]]:
    """Return the images per second of a case, and its environment."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, *TRAIN, "--steps", str(steps), "--run-dir", str(run), *case]
        subprocess.run(command, check=True, capture_output=True)
        return rates(run), json.loads((run / "environment.json").read_text())


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
            case = [*TRAIN[2:], "--steps", str(steps), "--run-dir", str(run)]
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
    parser.add_argument("--steps", type=int, default=120)
    options = parser.parse_args()
    divided: dict[str, list[float]] = {name: [] for name in DIVIDED}
    exchange: dict[str, list[dict[str, float]]] = {name: [] for name in LINKS}
    environment: dict[str, object] = {}
    for _ in range(options.rounds):
        for name, case in DIVIDED.items():
            rate, about = one_machine(case, options.steps)
            divided[name].append(round(rate))
            environment = about if name == "one device" else environment
    for _ in range(options.rounds):
        for name, megabits in LINKS.items():
            found = linked(megabits, options.steps // 2)
            exchange[name].append({what: round(value, 2) for what, value in found.items()})
    medians = {name: statistics.median(found) for name, found in divided.items()}
    result = {
        "what": "training of the tutorial network, images/s, batch 128 over all devices, fp32; "
        "between two hosts: milliseconds",
        "medians": medians,
        "ratios": {n: round(m / medians["one device"], 3) for n, m in medians.items()},
        "milliseconds": {
            name: {what: statistics.median(f[what] for f in found) for what in found[0]}
            for name, found in exchange.items()
        },
        "all": {"divided": divided, "exchange": exchange},
        "environment": environment,
    }
    shown = ("medians", "ratios", "milliseconds", "all")
    print(json.dumps({name: result[name] for name in shown}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
