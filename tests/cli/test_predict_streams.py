"""`predict` in processes of its own: pipes, and a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len

from deepcnn.data.arrays import Arrays
from tests.helpers.command import ENVIRONMENT
from tests.helpers.predicting import rows

PROGRAM = f"{shlex.quote(sys.executable)} -m deepcnn"
COLUMNS = 80
HOSTILE = [b"\x1b[31mred.png", b"\xff no utf-8.png", b"new\nline.png", "漢字漢字.png".encode()]


@pytest.fixture
def hostile(tmp_path: Path, cifar10_test: Arrays) -> Path:
    (tmp_path / "set").mkdir()
    for i, name in enumerate([*HOSTILE, f"{'long ' * 20}.png".encode()]):
        Image.fromarray(cifar10_test.images[i]).save(tmp_path / "set" / os.fsdecode(name))
    (tmp_path / "set" / "\x1b]0;bad\x07.png").write_bytes(b"no picture")
    return tmp_path


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        timeout=120,
    )


def test_paths_come_through_a_pipe(tiny_run: Path, hostile: Path) -> None:
    """Names of any bytes, apart by NUL, on to a table in characters that can be seen."""
    run = shlex.quote(str(tiny_run))
    done = shell(f"find set -type f -print0 | {PROGRAM} predict {run} - > out.csv", hostile)
    assert (done.returncode, done.stdout) == (3, b"")
    names = {row["path"] for row in rows((hostile / "out.csv").read_bytes())}
    assert names >= {
        r"set/\x1b[31mred.png",
        r"set/\udcff no utf-8.png",
        r"set/new\nline.png",
        "set/漢字漢字.png",
    }
    assert len(names) == 5
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(r"deepcnn: 'set/\x1b]0;bad\x07.png': expected the head of a picture")


def test_whoever_reads_may_have_enough(tiny_run: Path, hostile: Path) -> None:
    run = shlex.quote(str(tiny_run))
    command = f"yes $'set/\\xff no utf-8.png' | head -3000 | {PROGRAM} predict {run} - | head -1"
    done = shell(command, hostile)
    assert done.stdout.startswith(b"path,label,probability,unsure,p_pattern 0,")
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


def test_a_closed_standard_input_is_said(tiny_run: Path, hostile: Path) -> None:
    done = shell(f"{PROGRAM} predict {shlex.quote(str(tiny_run))} - <&-", hostile)
    assert done.returncode == 1
    said = "deepcnn: standard input: expected paths, but cannot be read (it is closed)\n"
    assert done.stderr.decode() == said


def on_terminal(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Run the program on a terminal of 80 columns; return its status and what is shown."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "COLUMNS"}
    with subprocess.Popen(
        [sys.executable, "-m", "deepcnn", *arguments],
        cwd=cwd,
        env=environment | {"TERM": "xterm"},
        stdin=its,
        stdout=its,
        stderr=its,
    ) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that nobody holds the other end
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_a_table_that_fits_and_nothing_that_commands_it(
    tiny_run: Path, hostile: Path
) -> None:
    status, shown = on_terminal("predict", str(tiny_run), "set", "--top", "4", cwd=hostile)
    assert status == 3
    lines = shown.splitlines()
    assert all(line.isprintable() for line in lines)
    lines = [line for line in lines if not line.startswith("deepcnn: ")]
    assert max(map(cell_len, lines)) <= COLUMNS
    assert len([line for line in lines if line[0] != " "]) == 5
    assert sum(line.count("%") for line in lines) == 20  # four classes of each
    for line in lines:  # those that go on stand below the classes, not below the path
        place = cell_len(line[: line.index("pattern" if "pattern" in line else "unsure")])
        assert place == 42
    assert r"\x1b[31mred.png" in shown
    assert "…long long" in shown


def test_csv_on_a_terminal_cannot_command_it_either(tiny_run: Path, hostile: Path) -> None:
    status, shown = on_terminal("predict", str(tiny_run), "set", "--format", "csv", cwd=hostile)
    assert status == 3
    assert all(line.isprintable() for line in shown.split("\n"))
    assert r"\x1b[31mred.png" in shown
    assert "漢字漢字.png" in shown
