"""A server in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 60  # seconds for what takes a few on an idle machine


class Server:
    """`deepcnn serve` as a process, at a free port of loopback.

    `program`: what Python runs instead.
    """

    def __init__(
        self, folder: Path, *options: str, program: tuple[str, ...] = ("-m", "deepcnn", "serve")
    ) -> None:
        self._out, self._err = folder / "out", folder / "err"
        port = ("--port", "0") if "--port" not in options else ()
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, *program, *options, *port],
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
                stdout=out,
                stderr=err,
            )

    def address(self) -> str:
        """Wait until it answers, and return where."""
        for _ in range(PATIENCE * 50):
            if found := re.search(r"Open (http://\S+)/ ", self.out):
                return found[1]
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.02)
                break
        raise AssertionError(f"the server did not start: {self.out}{self.err}")

    def port(self) -> int:
        """Wait until it answers, and return its port."""
        return int(urlsplit(self.address()).port or 0)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it however it is."""
        self.process.kill()
        self.process.wait()

    def threads(self) -> int:
        """Return how many threads it has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def descriptors(self) -> int:
        """Return how many files and connections it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def megabytes(self) -> float:
        """Return the memory that it holds itself."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    @property
    def out(self) -> str:
        """What it has written to standard output."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has written to standard error."""
        return self._err.read_text()
