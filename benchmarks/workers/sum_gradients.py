"""As one of several processes: time the sum of as many numbers as the tutorial has gradients.

torchrun runs it for the case `links`: sum_gradients.py OUT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

PARAMETERS = 1_068_298  # of the tutorial network
WARM_UP, REPEATS = 5, 25


def main() -> None:
    """Sum, and let rank 0 write the seconds."""
    dist.init_process_group("gloo")
    values = torch.ones(PARAMETERS)
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(values)
        seconds.append(time.perf_counter() - began)
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(seconds[WARM_UP:]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
