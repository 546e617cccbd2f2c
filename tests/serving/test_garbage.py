from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.conftest import StartServer
from tests.serving.garbage import throw_garbage

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def test_garbage_leaves_a_server_as_it_was(serve: StartServer) -> None:
    """Some seconds of what `python -m tests.serving.garbage` does for ten minutes."""
    server = serve("--timeout", "1")
    found = throw_garbage(server, seconds=6, most=2000, threads=8, seed=7, patience=20)
    assert found["wrong"] == []
    assert found["thrown"] > 20
    assert {"200", "400"} <= found["answers"].keys()
    assert server.stop() == 0
    assert server.err == ""
