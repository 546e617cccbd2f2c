"""A training on shards elsewhere is one on the same files here, also when it is killed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deepcnn.config import Config, to_dict
from deepcnn.data import web
from deepcnn.data.arrays import Arrays
from deepcnn.data.convert import convert
from deepcnn.errors import DataError
from deepcnn.events import Event, Saved
from deepcnn.training.start import resume, train
from tests.helpers import elsewhere
from tests.helpers.conversion import splits_of, store_npz
from tests.helpers.own_data import images_of
from tests.helpers.tiny import last_values, saved, tiny

SMALL = tiny(
    steps=40,
    save_every=1,
    keep=1,
    batch_size=16,
    feed="streamed",
    readers=2,
    shuffle_buffer=40,
    model=dataclasses.replace(tiny().model, widths=(4, 4, 8, 8)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splits = [Arrays(*images_of(n, 16, 16, 3, seed=n), ("a", "b", "c")) for n in (160, 24)]
    validation = dict(splits_of(*splits))
    convert(store_npz(tmp_path / "source", validation), tmp_path / "set", "tfrecord", shards=8)
    return tmp_path / "set"


def there(server: elsewhere.Server, data_dir: Path) -> Config:
    """Three shards of the eight fit."""
    size = max(path.stat().st_size for path in server.folder.glob("train*"))
    return dataclasses.replace(
        SMALL, data=server.url, data_dir=str(data_dir), cache_gigabytes=3 * size / 1e9
    )


def test_a_training_whose_server_went_away_goes_on_with_an_empty_cache_to_the_bits_of_local_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "WAITS", (0.0, 0.01))
    run, names = tmp_path / "there", [path.name for path in folder.glob("train*")]
    train(dataclasses.replace(SMALL, data=str(folder)), run_dir=tmp_path / "here")
    with elsewhere.serving(folder) as server:

        def go_away(event: Event) -> None:
            if isinstance(event, Saved) and event.step == 13:
                server.answers = {name: [elsewhere.busy] * 1000 for name in names}

        with pytest.raises(DataError, match="503 Service Unavailable"):
            train(there(server, tmp_path / "first"), run_dir=run, emit=go_away)
        assert 13 <= step_of(run) < SMALL.steps
        server.answers = {name: [elsewhere.breaking_off, elsewhere.other_bytes] for name in names}
        second = str(tmp_path / "second")
        resume(run, changes=lambda config: dataclasses.replace(config, data_dir=second))
    assert last_values(run) == last_values(tmp_path / "here")
    assert [path.name for path in (tmp_path / "second").iterdir()] == ["shards"]


@pytest.mark.endurance
def test_a_killed_training_goes_on_with_an_empty_cache_to_the_bits_of_local_files(
    folder: Path, tmp_path: Path
) -> None:
    train(dataclasses.replace(SMALL, data=str(folder)), run_dir=tmp_path / "here")
    run = tmp_path / "there"
    script = (
        "import json, sys, deepcnn; from deepcnn.config import from_dict; "
        "deepcnn.train(from_dict(json.loads(sys.argv[1])), run_dir=sys.argv[2])"
    )
    with elsewhere.serving(folder) as server:
        text = json.dumps(to_dict(there(server, tmp_path / "first")))
        process = subprocess.Popen([sys.executable, "-c", script, text, str(run)])
        while process.poll() is None and len(saved(run)) == 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert 0 < step_of(run) < SMALL.steps
        second = str(tmp_path / "second")
        resume(run, changes=lambda config: dataclasses.replace(config, data_dir=second))
    assert last_values(run) == last_values(tmp_path / "here")


def step_of(run: Path) -> int:
    return int(saved(run)[-1].stem.removeprefix("step-"))
