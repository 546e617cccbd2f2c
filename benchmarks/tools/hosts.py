"""Two hosts on one machine: network namespaces joined by a link whose speed can be set.

Needs Linux, `ip` and `tc` (Debian: iproute2), and root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ADDRESSES = ("10.77.0.1", "10.77.0.2")
LINK = "link0"  # the interface in each of them


def ip(*arguments: str) -> None:
    """Run `ip` with these arguments."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def two_hosts(megabits: float | None = None) -> Iterator[tuple[str, str]]:
    """Make two hosts and give their names, for `on`; `megabits` a second in each direction."""
    hosts = (f"deepcnn-{os.getpid()}-a", f"deepcnn-{os.getpid()}-b")
    try:
        for host in hosts:
            ip("netns", "add", host)
        ends = [("netns", host, "name", LINK) for host in hosts]
        ip(
            "link",
            "add",
            *ends[0][2:],
            *ends[0][:2],
            "type",
            "veth",
            "peer",
            *ends[1][2:],
            *ends[1][:2],
        )
        for host, address in zip(hosts, ADDRESSES, strict=True):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", LINK)
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", LINK, "up")
            if megabits is not None:
                shape = ["tc", "-n", host, "qdisc", "add", "dev", LINK, "root", "tbf"]
                shape += ["rate", f"{megabits}mbit", "burst", "64kb", "latency", "100ms"]
                subprocess.run(shape, check=True, capture_output=True)
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)


def on(host: str, command: list[str]) -> list[str]:
    """Return the command that runs a command on a host."""
    return ["ip", "netns", "exec", host, *command]


def torchrun(
    hosts: tuple[str, str],
    program: list[str],
    *,
    job: str,
    nodes: str = "2",
    restarts: int = 0,
    meeting: str = "",
) -> list[list[str]]:
    """Return the commands, one for each host, that run a program in one process on each.

    `meeting` is added to the settings of torchrun's rendezvous.
    """
    commands = []
    for i, host in enumerate(hosts):
        command = [sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes", nodes, "--nproc-per-node", "1", "--max-restarts", str(restarts)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400"]
        command += ["--rdzv-id", job, "--local-addr", ADDRESSES[i]]
        command += ["--rdzv-conf", f"is_host={1 - i}{meeting}"]  # both bear this machine's name
        commands.append(on(host, [*command, *program]))
    return commands
