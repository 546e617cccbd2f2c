"""The wheel has all that the program needs, and the program finds it there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import deepcnn

REPOSITORY = Path(__file__).parent.parent
READ_FROM_IT = """
import deepcnn.cli.main
from deepcnn.reports.page import SCRIPTS, asset, script
from deepcnn.serving.page import Page
assert deepcnn.__file__.startswith(WHEEL), deepcnn.__file__
assert "<html" in Page.upload("a test").content
for name in ("base.html", "parts.html", "report.html", "comparison.html", "demo.html", "page.css"):
    assert asset(name)
assert all(map(script, SCRIPTS))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    made = [sys.executable, "-m", "flit_core.wheel", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(made, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    source = REPOSITORY / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "deepcnn").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    found = {name for name in names if name.startswith("deepcnn/")}
    assert found == expected
    for name in ("py.typed", "serving/page.html", "reports/assets/engine.js", "cli/main.py"):
        assert f"deepcnn/{name}" in found
    others = {name.partition("/")[0] for name in names} - {"deepcnn"}
    assert others == {f"deepcnn-{deepcnn.__version__}.dist-info"}


def test_the_wheel_says_what_it_is_and_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = f"deepcnn-{deepcnn.__version__}.dist-info"
        metadata = message_from_bytes(archive.read(f"{about}/METADATA"))
        commands = archive.read(f"{about}/entry_points.txt").decode()
        assert f"{about}/licenses/LICENSE" in archive.namelist()
    assert metadata["Version"] == deepcnn.__version__
    assert metadata["Summary"] == (deepcnn.__doc__ or "").splitlines()[0]
    assert {"serve", "export", "openvino"} <= set(metadata.get_all("Provides-Extra", []))
    assert "deepcnn=deepcnn.cli.main:main" in commands


def test_its_pages_are_found_where_only_the_wheel_is(wheel: Path, tmp_path: Path) -> None:
    """Python imports from the archive itself, so nothing of the source can stand in."""
    script = READ_FROM_IT.replace("WHEEL", repr(str(wheel)))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
