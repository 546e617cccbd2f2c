"""As one of several processes: train with all gradients in one bucket, full at the very end.

torchrun runs it for the case `links`, with the arguments of `deepcnn`.
"""

from __future__ import annotations

from deepcnn.cli.main import main as cli
from deepcnn.team import processes

plain = processes.DistributedDataParallel


def one_bucket(*positional: object, **named: object) -> object:
    """Return deepcnn's wrapper, with room for all gradients in its first bucket."""
    return plain(*positional, bucket_cap_mb=1000, init_sync=True, **named)


processes.DistributedDataParallel = one_bucket
cli.main()
