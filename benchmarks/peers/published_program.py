"""Runs a published program as it is, but for the rest that it gives the GPU between its runs.

    python benchmarks/peers/published_program.py PROGRAM.py

One of them lets the GPU sleep for seconds before each of its runs. Those are not in the times that
it prints, and machines with a GPU are dear.
"""

import runpy
import sys

import torch

torch.cuda._sleep = lambda cycles: None  # noqa: ARG005
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
