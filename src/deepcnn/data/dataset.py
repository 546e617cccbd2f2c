"""A data set at a name or a path, opened once, with its splits."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcnn.data.class_file import MAX_CLASSES
from deepcnn.data.copies import first_of_each, of_files
from deepcnn.data.digests import digests
from deepcnn.data.exclusions import Exclusions
from deepcnn.data.formats.pictures import PictureShard
from deepcnn.data.layouts import Layout
from deepcnn.data.shards import Progress, by
from deepcnn.data.source import Resizable, Source, Subset, held_out, in_memory
from deepcnn.data.splits import SPLITS, Split
from deepcnn.errors import ConfigError, DataError
from deepcnn.events import Listener, Reading
from deepcnn.settings import DataSpec
from deepcnn.shown import quoted


class Dataset:
    """The splits of a data set; each is opened only once, when it is first asked for.

    `spec` says what is held out. With a `validation_size`, the split "validation" has that many
    examples of the training set, the same ones for the same `validation_seed`, and "train" has the
    others. With a size of 0, "validation" is the set's own validation split. With `train_on_extra`,
    the split "extra" does not exist by itself; its examples follow in "train", and none of them is
    held out.
    """

    def __init__(self, spec: DataSpec, layout: Layout) -> None:
        self.spec = spec
        self._layout = layout
        self._own: dict[Split, Source] = {}  # as they lie on disk, nothing held out
        self._split: dict[Split, Source] = {}
        self._labels: dict[Split, NDArray[np.int64]] = {}
        self._content: dict[Split, str] = {}
        self._held_out: NDArray[np.bool_] | None = None  # which of the training set are
        self._first: NDArray[np.int64] | None = None  # copy of each, if they are kept together
        exclude = spec.exclude
        self.exclusions = Exclusions.read(Path(exclude).expanduser()) if exclude else None

    @property
    def form(self) -> str:
        """The name of the data set if it has one, else its format."""
        return self._layout.form

    @property
    def own_splits(self) -> tuple[Split, ...]:
        """The splits that the data themselves have."""
        return tuple(self._layout.open)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that can be asked for: the data's own, and the one that is held out."""
        there = {*self.own_splits, *(["validation"] if self.spec.validation_size else [])}
        there -= {"extra"} if self.spec.train_on_extra else set()
        return tuple(split for split in SPLITS if split in there)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels; all splits use those of the training split."""
        return self._layout.classes or self._own_split(self.own_splits[0]).classes

    @property
    def excluded(self) -> str | None:
        """The digest of the table of examples that are left out, or None."""
        return None if self.exclusions is None else self.exclusions.sha256

    def left_out(self, split: Split) -> str:
        """Return a sentence about what a table leaves out of a split on disk, or ""."""
        rows = self.exclusions.rows.get(split) if self.exclusions is not None else None
        if self.exclusions is None or not rows:
            return ""
        total = len(self._own_split(split)) + len(rows)
        return f"{self.exclusions.table}: {len(rows):,} of {total:,} {split} examples are left out"

    def hold_out(self, validation_size: int, **settings: bool) -> Dataset:
        """Return the same set with this many training examples held out.

        `settings`: other settings of the data to change.
        """
        return self._with(validation_size=validation_size, **settings)

    def copies_held_together(self) -> int:
        """Return how many training examples are copies of another one on the same side.

        It is 0 if nothing is held out, or if copies are not looked for.
        """
        self.split("train")
        first = self._first
        if first is None or not first.any():  # of copies of one image alone nothing can be said
            return 0
        return int((first != np.arange(len(first))).sum())

    def resized(self, image_size: tuple[int, int]) -> Dataset | None:
        """Return the same set with its pictures brought to a height and a width.

        Returns None if the pictures are not files, since then their size is fixed. All splits are
        opened.
        """
        own = {split: self._own_split(split).resized(*image_size) for split in self.own_splits}
        other = self._with(image_size=image_size)
        other._own = {split: source for split, source in own.items() if source is not None}
        return other if len(other._own) == len(own) else None

    @property
    def is_of_pictures(self) -> bool:
        """Whether the images are encoded, so that they can be brought to any size."""
        shards = self._own_split(self.own_splits[0]).shards
        inner = (shard.shard if isinstance(shard, Subset) else shard for shard in shards)
        return all(isinstance(shard, Resizable) for shard in inner)

    def check_size(self) -> None:
        """Raise ConfigError where arrays are to be brought to another size, or to one by `fit`."""
        spec, shape = self.spec, self._own_split(self.own_splits[0]).shape
        wanted = []
        if spec.image_size not in (None, shape[:2]):
            wanted.append(f"image_size {by((*spec.image_size, shape[2]))}")
        if spec.fit != "crop":
            wanted.append(f"fit {spec.fit}")
        if wanted and not self.is_of_pictures:
            raise ConfigError(
                f"{' and '.join(wanted)}: {spec.data} ({self.form}) holds images of {by(shape)} as "
                "arrays, which stay as they are; only encoded pictures are brought to another "
                "size. Leave it out, or write pictures first: deepcnn data convert "
                f"{quoted(spec.data)} FOLDER --to folder"
            )

    def usual_size(self) -> tuple[int, int] | None:
        """Return the height and width for pictures that have all kinds of sizes, or None."""
        shards = self._own_split(self.own_splits[0]).shards
        return shards[0].usual if isinstance(shards[0], PictureShard) else None

    def fewer(self, train_size: int) -> Dataset:
        """Return the same set with only this many training examples."""
        return self._with(train_size=train_size)

    def _with(self, **settings: Any) -> Dataset:
        other = Dataset(dataclasses.replace(self.spec, **settings), self._layout)
        other._own = self._own
        other._first = self._first  # which is kept of files alone, whatever their size
        return other

    def split(self, split: Split) -> Source:
        """Return a split, to be read block by block.

        Raises DataError if there is no such split, if its images or classes differ from those of
        the training set, or if it cannot be opened.
        """
        if split not in SPLITS:
            raise DataError(f"split: expected {', '.join(SPLITS)}, found {split!r}")
        if split not in self._split:
            if split in ("test", "extra") or not self.spec.validation_size:
                own = self._own_split(split)
                self._split[split] = self._with_extra(self._used(own)) if split == "train" else own
            else:
                self._hold_out()
        return self._split[split]

    def counts(self, split: Split, progress: Progress | None = None) -> NDArray[np.int64]:
        """Return how many examples of a split each class has, int64 [classes].

        Labels are read once, and checked.
        """
        source = self.split(split)
        if split not in self._labels:
            self._labels[split], self._content[split] = source.labels_and_content(progress)
        return np.bincount(self._labels[split], minlength=len(source.classes))

    def content(self, split: Split) -> str:
        """Return a digest of a split's pixels and labels, in their order.

        It comes from the pass over the labels, which is made only once. Held-out examples and the
        remaining training examples have one digest of both together, unless labels are known
        without reading the files.
        """
        self.counts(split)
        return self._content[split]

    def own_split_of(self, split: Split) -> Split:
        """Return the split on disk from which the examples of a split come."""
        held = self.spec.validation_size and split == "validation"
        return "train" if held else split

    def places(self, split: Split) -> NDArray[np.int64]:
        """Return the place of each example of a split in its `own_split_of`, int64 [N].

        Places are those on disk, before anything is left out or held out. For a training set with
        extra examples, only the places of its own examples are returned.
        """
        own = self.own_split_of(split)
        left_out = list(self.exclusions.rows.get(own, ())) if self.exclusions is not None else []
        self.split(split)
        found = np.delete(np.arange(len(self._own[own]) + len(left_out)), left_out)
        if self._held_out is not None and split in ("train", "validation"):
            found = found[self._held_out == (split == "validation")]
        return found

    def read_whole(self, split: Split, *, keep: bool, progress: Progress) -> Source:
        """Read all examples of a split, so that nothing can fail later, and return it.

        `keep`: keep it in memory, where `split` finds it from then on; else read it once, in
        constant memory. A split for scoring keeps the boundaries of its files, so it is read in the
        same blocks either way. Raises DataError, which names file and example, for data that cannot
        be read and for labels that are not the index of a class.
        """
        source = self.split(split)
        if not keep:
            self.counts(split, progress)
            return source
        whole = source.load(progress)
        if split != "train":
            ends = np.cumsum([0, *map(len, source.shards)]).tolist()
            parts = [whole.select(slice(a, b)) for a, b in itertools.pairwise(ends)]
            shards = tuple(in_memory(part).shards[0] for part in parts)
            self._split[split] = Source(shards, source.classes)
        else:
            self._split[split] = in_memory(whole)
        return self._split[split]

    def _hold_out(self) -> None:
        source, spec = self._own_split("train"), self.spec
        known, content = source.known_labels(), ""
        together = spec.copies_together
        if known is None:
            found: list[bytes] = []

            def look(images: NDArray[np.uint8]) -> None:
                found.extend(map(bytes, digests(images)))

            labels, content = source.labels_and_content(look=look if together else None)
            self._first = first_of_each(found) if together else None
        else:
            labels = known
            if not together:
                self._first = None
            elif self._first is None:
                self._first = of_files(source.shards)
        chosen = held_out(
            labels,
            spec.validation_size,
            choice=spec.validation_choice,
            seed=spec.validation_seed,
            first=self._first,
        )
        self._held_out = chosen
        used = self._used(source.select(~chosen), labels[~chosen])
        self._split["train"] = self._with_extra(used)
        self._split["validation"] = source.select(chosen)
        if known is not None:  # without a look at the images, which still may be unreadable
            return
        self._labels["validation"], self._content["validation"] = labels[chosen], content
        if not spec.train_on_extra and not spec.train_size:
            self._labels["train"], self._content["train"] = labels[~chosen], content

    def _used(self, train: Source, labels: NDArray[np.int64] | None = None) -> Source:
        """Return as many training examples as are wanted; `labels`: of all, if they are known.

        The same share of each class is used, chosen at random, the same for the same
        `validation_seed`.
        """
        size = self.spec.train_size
        if not 0 < size < len(train):
            return train
        if labels is None:
            labels = train.known_labels()
        if labels is None:
            labels = train.labels()
        seed = self.spec.validation_seed
        return train.select(held_out(labels, size, choice="stratified", seed=seed))

    def _with_extra(self, train: Source) -> Source:
        """Return the examples to train on, with the split "extra" if it is asked for."""
        if not self.spec.train_on_extra:
            return train
        return Source((*train.shards, *self._own_split("extra").shards), train.classes)

    def _own_split(self, split: Split) -> Source:
        if split not in self._own:
            if split not in self._layout.open:
                raise self._missing(split)
            shards = self._layout.open[split]()
            classes = self._layout.classes
            first = self.own_splits[0]
            if classes is None and split == first:
                classes = _numbered(Source(shards, ("?",) * MAX_CLASSES))
            source = Source(shards, classes or self.classes)
            if split != first and not self._layout.alike:
                _compare(source, split, self._own_split(first), first)
            if self.exclusions is not None:
                source = self.exclusions.apply(split, source)
            self._own[split] = source
        return self._own[split]

    def _missing(self, split: Split) -> DataError:
        can_hold_out = "train" in self.own_splits
        splits = [s for s in self.splits if can_hold_out or s in self.own_splits]
        there = ", ".join(splits)
        if split == "validation":
            return DataError(
                f"{self.spec.data} has no validation split (found: {there}); hold one out with "
                "validation_size, as in --validation-size 5000"
            )
        article = "an" if split == "extra" else "a"
        return DataError(
            f"{self.spec.data}: {self.form}: expected {article} {split} split, found only {there}. "
            "Name one of these: --split " + " or --split ".join(splits)
        )


def _compare(source: Source, split: Split, expected: Source, first: Split) -> None:
    """Raise DataError unless both splits have images of the same shape."""
    if source.shape != expected.shape:
        raise DataError(
            f"{source.shards[0].name}: expected images of {by(expected.shape)}, as the {first} "
            f"split has in {expected.shards[0].name}, found {by(source.shape)} in the {split} "
            "split. Bring both to one size and number of channels."
        )


def reading(what: str, emit: Listener) -> Progress:
    """Return a function that tells a listener about a pass over examples."""
    return lambda done, total: emit(Reading(f"reading {what}", done, total))


def _numbered(source: Source) -> tuple[str, ...]:
    """Name the classes by number, up to the largest label."""
    labels = source.known_labels()
    if labels is None or labels.max() >= len(source.classes):  # then it is said of which example
        labels = source.labels()
    return tuple(map(str, range(int(labels.max()) + 1)))
