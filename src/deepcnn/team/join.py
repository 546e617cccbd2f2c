"""The start of every training: alone, or together with other processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from deepcnn.team.team import Team


@contextmanager
def join() -> Iterator[Team]:
    """Meet the other processes that were started by torchrun or with its variables."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        from deepcnn.team.processes import Processes

        with Processes.meet() as processes:
            yield processes
    else:
        yield Team()
