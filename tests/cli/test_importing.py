from __future__ import annotations

import gc
import subprocess
import sys

from deepcnn.cli.importing import importing


def test_torch_is_imported_without_collecting_and_its_objects_are_never_looked_at_again() -> None:
    script = """
import gc
from deepcnn.cli.importing import importing
collections = []
gc.callbacks.append(lambda phase, about: collections.append(phase))
with importing():
    import torch
print(len(collections), gc.isenabled(), gc.get_freeze_count() > 100_000)
assert gc.get_count()[2] == 0 and len(gc.get_objects()) < 10_000
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 True True\n", "")


def test_where_torch_is_already_here_nothing_is_kept_from_the_collector() -> None:
    before = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
