from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.helpers.command import deepcnn


def test_show_counts_and_draws(tmp_path: Path) -> None:
    done = deepcnn("data", "show", "synthetic", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8,192 images, 32×32×3" in done.stdout
    assert "820  pattern 0" in done.stdout
    with Image.open(tmp_path / "synthetic-train.png") as sheet:
        assert sheet.size == (150 + 12 * 68 + 4, 10 * 68 + 4)
