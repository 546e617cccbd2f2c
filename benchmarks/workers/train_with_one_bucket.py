"""As one of several processes: train with all gradients in one bucket, full at the very end.

The case `links` starts it by torchrun, with the arguments of `deepcnn`.
"""

from __future__ import annotations

from deepcnn.cli.main import run
from deepcnn.engines import distributed

plain = distributed.DistributedDataParallel


def one_bucket(*positional: object, **named: object) -> object:
    """Return deepcnn's wrapper, with room for all gradients in its first bucket."""
    return plain(*positional, bucket_cap_mb=1000, init_sync=True, **named)


def main(arguments: list[str]) -> int:
    """Train as `deepcnn` does."""
    distributed.DistributedDataParallel = one_bucket
    return run(arguments)
