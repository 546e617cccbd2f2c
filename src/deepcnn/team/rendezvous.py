"""Lets the processes of a training find each other and agree on a name for their meeting."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from typing import Any

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]  # public all the same

from deepcnn.team.signs import Peer, Signs

_MEETING_SECONDS = 0.02  # from one look into the store to the next


def common_name(store: Store, rank: int, size: int) -> str:
    """Agree on a name that no processes before these have used in the store.

    torchrun keeps its store when it starts processes again, and the store still has the addresses
    of the earlier ones. torchrun has no count of the starts that is the same on all machines. So
    each process leaves a new word. The first process shows all words that it has seen, until every
    process has found its own among them.
    """
    own = secrets.token_hex(8)
    store.set(f"deepcnn/word {rank}", own)
    if rank:
        seen: list[str] = []
        while len(seen) != size or seen[rank] != own:
            time.sleep(_MEETING_SECONDS)
            seen = json.loads(store.get("deepcnn/seen"))
        store.set(f"deepcnn/{seen[0]} {rank}", "found")
        return f"deepcnn/{seen[0]}"
    answers = [f"deepcnn/{own} {other}" for other in range(1, size)]
    while True:
        seen = [store.get(f"deepcnn/word {other}").decode() for other in range(size)]
        store.set("deepcnn/seen", json.dumps(seen))
        if not answers or store.check(answers):
            return f"deepcnn/{own}"
        time.sleep(_MEETING_SECONDS)


def exchange_signs() -> Signs:
    """Tell all processes where each one listens for signs of life, and start sending them."""
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:  # the address by which the machine that all others know is reached
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
            towards.connect((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
            host = towards.getsockname()[0]
        own.bind(("", 0))
    except OSError:  # no IPv4 there: then without signs, and with the library's own time-outs
        host = ""
    rank = dist.get_rank()
    name = f"rank {rank} (machine {socket.gethostname()}, process {os.getpid()})"
    about = (rank, name, (host, own.getsockname()[1] if host else 0), secrets.token_hex(8))
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, about)
    peers = [Peer(r, n, address) for r, n, address, _ in everyone if r != rank and address[0]]
    token = everyone[0][3]
    parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
    return Signs(own, rank, peers, token, parent)
