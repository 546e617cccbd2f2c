"""Shards behind https: whose certificate is trusted, and whose is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepcnn.data import web
from deepcnn.data.convert import convert
from deepcnn.data.open import open_dataset
from deepcnn.errors import DataError
from deepcnn.settings import DataSpec
from tests.helpers import elsewhere
from tests.helpers.command import run_here
from tests.helpers.conversion import assert_same, load, made, splits_of, store_npz
from tests.helpers.elsewhere import Server

TRUSTED = "SSL_CERT_FILE"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(web, "WAITS", (0.0, 0.01))
    monkeypatch.setattr(os, "fsync", os.fstat)
    source = store_npz(tmp_path / "source", splits_of(made(40, 8, 6, 3), made(11, 8, 6, 3)))
    convert(DataSpec(data=str(source)), tmp_path / "folder", "tfrecord", shards=3)
    with elsewhere.serving(tmp_path / "folder", tls=True) as found:
        yield found


def test_a_certificate_that_the_environment_names_is_trusted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED, str(elsewhere.CERTIFICATE))
    server.answers = {path.name: [elsewhere.breaking_off] for path in server.folder.iterdir()}
    dataset = open_dataset(DataSpec(data=server.url, data_dir=str(tmp_path)))
    found = {split: dataset.split(split).load() for split in dataset.own_splits}
    assert_same(found, load(server.folder))
    assert server.url.startswith("https://")
    assert sum(each is not None for each in server.ranges) == len(server.answers) - 2


def test_a_certificate_that_nobody_vouches_for_is_one_line_and_no_shard(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(TRUSTED, raising=False)
    arguments = ["train", "tiny", "--data", server.url, "--data-dir", str(tmp_path / "cache")]
    assert run_here(monkeypatch, *arguments, "--run-dir", str(tmp_path / "run")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = f"deepcnn: {server.url}index.json: the server's certificate is not trusted (self"
    assert line.startswith(said)
    assert "SSL_CERT_FILE" in line
    assert not server.asked
    assert not (tmp_path / "run").exists()


def test_a_certificate_of_another_host_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED, str(elsewhere.CERTIFICATE))
    with pytest.raises(DataError, match=r"not trusted \(Hostname mismatch.*'localhost'"):
        open_dataset(server.url.replace("127.0.0.1", "localhost"))
    assert not server.asked


def test_https_does_not_lead_to_http(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUSTED, str(elsewhere.CERTIFICATE))
    with elsewhere.serving(server.folder) as plain:
        server.answers["index.json"] = [elsewhere.leading_to(f"{plain.url}index.json")]
        with pytest.raises(DataError, match="the server leads elsewhere than to https"):
            open_dataset(server.url)
        assert not plain.asked
