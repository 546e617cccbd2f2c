"""Starts the processes of a training on this machine, like torchrun, but with less effort."""

from __future__ import annotations

import logging
import os
import sys
import uuid

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from deepcnn.errors import TrainingError
from deepcnn.stopping import status_of
from deepcnn.team.signs import ADVICE

_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # passed on; without the last, as by default


def launch(processes: int, arguments: list[str]) -> int:
    """Run `python -m deepcnn` with `arguments` in this many processes; return the exit status.

    The processes print for themselves. SIGINT, SIGTERM, SIGHUP and SIGUSR1 are passed on to them;
    then they save and end. No process outlives this call. Raises TrainingError if one was killed.
    """
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", _SIGNALS)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
    )
    try:
        elastic_launch(config, sys.executable)("-m", "deepcnn", *arguments)
    except SignalException as stopped:
        return status_of(int(stopped.sigval))
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode > 0:  # it has told why
            return first.exitcode
        raise TrainingError(
            f"rank {rank} (process {first.pid}) was killed by {first.signal_name()}. {ADVICE}"
        ) from failed
    return 0
