"""Makes an index for existing TFRecord shards, so that they can be read from elsewhere."""

from __future__ import annotations

from pathlib import Path

from deepcnn.data import remote
from deepcnn.data.formats import tfrecord, tfrecord_pictures
from deepcnn.data.open import open_dataset
from deepcnn.data.splits import Split
from deepcnn.errors import DataError, storing
from deepcnn.events import Listener, ignore
from deepcnn.settings import DataSpec

FORMS = {tfrecord.NAME: remote.FORM, tfrecord_pictures.NAME: remote.OF_PICTURES}


def index(folder: Path, *, emit: Listener = ignore) -> dict[Split, int]:
    """Write `index.json` into a folder of TFRecord files; return the examples by split.

    If the files hold pictures, the header of each picture is read. Raises DataError for any other
    folder, for compressed files, and as `open_dataset` does. Raises StorageError if the file cannot
    be written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of TFRecord files, found none")
    dataset = open_dataset(DataSpec(data=str(folder)), emit=emit)
    if dataset.form not in FORMS:
        raise DataError(
            f"{folder}: expected TFRecord files, found {dataset.form}. Write them: deepcnn data "
            "convert SOURCE FOLDER --to tfrecord"
        )
    sources = {split: dataset.split(split) for split in dataset.own_splits}
    listed: dict[Split, list[tuple[str, int]]] = {}
    for split, source in sources.items():
        listed[split] = [(Path(shard.name).name, len(shard)) for shard in source.shards]
        for name, shard in zip(listed[split], source.shards, strict=True):
            if not shard.seekable or not remote.is_plain(name[0]):
                raise DataError(
                    f"{shard.name}: expected files that are not compressed, so that reading may "
                    "start anywhere. Unpack it."
                )
    shape = next(iter(sources.values())).shape
    with storing(folder / remote.INDEX_FILE):
        remote.describe(folder, listed, shape, dataset.classes, FORMS[dataset.form])
    return {split: len(source) for split, source in sources.items()}
