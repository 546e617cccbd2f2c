"""Makes an index for existing shards, so that they can be read from elsewhere."""

from __future__ import annotations

from pathlib import Path

from deepcnn.data import remote
from deepcnn.data.formats import parquet, tfrecord, tfrecord_pictures
from deepcnn.data.open import open_dataset
from deepcnn.data.splits import Split
from deepcnn.errors import DataError, storing
from deepcnn.events import Listener, ignore
from deepcnn.settings import DataSpec
from deepcnn.shown import quoted

FORMS = {
    tfrecord.NAME: remote.FORM,
    tfrecord_pictures.NAME: remote.OF_PICTURES,
    parquet.NAME: remote.OF_PARQUET,
}


def index(folder: Path, *, emit: Listener = ignore) -> dict[Split, int]:
    """Write `index.json` into a folder of TFRecord or Parquet files; return the examples by split.

    If the files hold pictures, the header of each picture is read. Raises DataError for any other
    folder, for shards below it, and as `open_dataset` does. Raises StorageError if the file cannot
    be written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of TFRecord or Parquet files, found none")
    dataset = open_dataset(DataSpec(data=str(folder)), emit=emit)
    if dataset.form not in FORMS:
        raise DataError(
            f"{folder}: expected TFRecord or Parquet files, found {dataset.form}. Write them: "
            "deepcnn data convert SOURCE FOLDER --to tfrecord"
        )
    sources = {split: dataset.split(split) for split in dataset.own_splits}
    listed: dict[Split, list[tuple[str, int]]] = {}
    compressed: set[str] = set()
    for split, source in sources.items():
        listed[split] = [(Path(shard.name).name, len(shard)) for shard in source.shards]
        for shard in source.shards:
            if Path(shard.name).parent != folder:
                raise DataError(
                    f"{shard.name}: expected shards in the folder itself, found them below it. "
                    f"List those: deepcnn data index {quoted(str(Path(shard.name).parent))}"
                )
            if not shard.seekable:
                compressed.add(Path(shard.name).name)
    shape = next(iter(sources.values())).shape
    with storing(folder / remote.INDEX_FILE):
        form = FORMS[dataset.form]
        remote.describe(folder, listed, shape, dataset.classes, form, compressed)
    return {split: len(source) for split, source in sources.items()}
