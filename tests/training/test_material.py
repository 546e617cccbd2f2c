from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import deepcnn
from deepcnn import presets
from deepcnn.data.formats import tfrecord
from deepcnn.errors import DataError
from tests.helpers.own_data import equal, images_of, write_pictures


def test_labels_are_checked_before_the_first_step(tmp_path: Path) -> None:
    images, labels = images_of(40, 32, 32, 3)
    labels[17] = 7
    (tmp_path / "train.tfrecords").write_bytes(tfrecord.encode(images, labels))
    (tmp_path / "test.tfrecords").write_bytes(tfrecord.encode(images, labels))
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    for feed in ("preloaded", "queued", "streamed"):
        config = dataclasses.replace(presets.tiny(), data=str(tmp_path), feed=feed)
        with pytest.raises(
            DataError, match=r"train\.tfrecords: expected labels 0 to 2, .*found 7 for example 17"
        ):
            training.train(config, run_dir=tmp_path / "run")
        assert not (tmp_path / "run").exists()
