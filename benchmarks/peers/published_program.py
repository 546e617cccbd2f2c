"""Runs a published program as it is, but for the rest that it gives the GPU between its runs.

    python benchmarks/peers/published_program.py PROGRAM.py

One of them lets the GPU sleep for seconds before each of its runs. Those are not in the times that
it prints, and machines with a GPU are dear.
"""

import runpy
import sys
from pathlib import Path

import torch

torch.cuda._sleep = lambda cycles: None  # noqa: ARG005
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(sys.argv[0]).parent)  # where a program that is started finds its modules
runpy.run_path(sys.argv[0], run_name="__main__")
