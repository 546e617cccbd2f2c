"""As one of several processes: time the sum of as many numbers as the tutorial has gradients.

The case `links` starts it by torchrun: run.py worker sum_gradients OUT
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import torch.distributed as dist

PARAMETERS = 1_068_298  # of the tutorial network
WARM_UP, REPEATS = 5, 25


def main(arguments: list[str]) -> int:
    """Sum, and let rank 0 write the seconds."""
    (out,) = arguments
    dist.init_process_group("gloo")
    values = torch.ones(PARAMETERS)
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(values)
        seconds.append(time.perf_counter() - began)
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(seconds[WARM_UP:]))
    dist.destroy_process_group()
    return 0
