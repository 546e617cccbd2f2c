"""Say what is on pictures."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.cli.importing import importing
from deepcnn.console import console, say
from deepcnn.data.formats.listings import SUFFIXES, PassedOver, is_file, is_folder
from deepcnn.errors import ConfigError, RunError
from deepcnn.events import Listener, Noted, Reading
from deepcnn.intervals import described
from deepcnn.settings import DataSpec

if TYPE_CHECKING:
    from deepcnn.cli.answers import Writer
    from deepcnn.data.source import Source
    from deepcnn.data.splits import Split
    from deepcnn.inference.classifier import Classifier, One, Prediction, Unread

UNREAD = 3  # exit status where some pictures could not be read
SCORED_TOGETHER = 500  # as `evaluate` does, so that both round alike
NOTHING = "predict: expected pictures, a folder, - or --data, found none"
LONGEST_NAME = 1 << 16  # bytes of a path on standard input


@dataclass(frozen=True)
class Options:
    """Say what is on pictures, with a trained network."""

    run: tyro.conf.Positional[str] = ""
    """Directory of the run, or a file of deepcnn export (.onnx or .safetensors). If this is a
    picture instead, the newest run below runs/ answers."""
    pictures: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, folders with all pictures below them, patterns such as 'photos/*.png', or tables of
    pixels (.csv). - reads paths from standard input, one on each line or separated by NUL."""
    data: str | None = None
    """A labelled data set instead: a name or a path."""
    split: Literal["train", "validation", "test", "extra"] | None = None
    """With --data: which split; None: the same one as evaluate."""
    format: Literal["table", "csv", "json", "jsonl"] | None = None
    """None: a table on a terminal, else CSV."""
    top: int = 3
    """Number of classes that the table shows for each picture."""
    all: bool = False
    """Show all classes in the table."""
    out: Path | None = None
    """File for the answers; None: standard output."""
    sort_into: Path | None = None
    """Copy each picture into the folder of its class, below this folder. Pictures with an unsure
    answer go into unsure/. Nothing is overwritten."""
    step: int | None = None
    """Step of the checkpoint; None: the newest."""
    averaged: bool = True
    """Use the moving averages of the parameters, if the run keeps them."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the multiplications. bf16 is faster if the hardware has it."""
    threads: int | None = None
    """Processor threads; None: the runtime's choice."""
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """What computes. auto: torch for a run and for weights; for an ONNX file, the faster one of
    ONNX Runtime and OpenVINO."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""


def run(options: Options) -> int:
    """Answer about every picture, in order; return 3 if some could not be read."""
    from deepcnn.cli.answers import Style, writer
    from deepcnn.inference.load import load

    path, pictures = _what_is_meant(options)
    total = _check(options, pictures)
    with importing(), console(as_json=False, to="stderr") as tell:
        classifier = load(
            path,
            step=options.step,
            averaged=options.averaged,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            runtime=options.runtime,
            model=own_network(options.model),
            emit=tell,
        )
    on_terminal = options.out is None and sys.stdout.isatty()
    form = options.format or ("table" if on_terminal else "csv")
    style = Style(form, classifier.classes, None if options.all else options.top)
    unread = 0
    with console(as_json=False, to="stderr") as tell:
        labelled = None if options.data is None else _labelled(path, options, classifier, tell)
        with writer(style, options.out) as write:
            if labelled is not None:
                _answer_data(*labelled, classifier, write, tell)
            if pictures:
                passed = PassedOver()
                answers = classifier.try_predict(_paths(pictures, passed))
                unread = _write_all(answers, write, options.sort_into, total, tell)
                if passed.count:
                    tell(Noted(f"predict: {passed}"))
    return UNREAD if unread else 0


def _what_is_meant(options: Options) -> tuple[Path, tuple[str, ...]]:
    """Return the run that answers, and the pictures."""
    from deepcnn.inference.load import is_file_of_network
    from deepcnn.runs.run import CONFIG

    first = options.run
    if not first and options.data is None:
        raise ConfigError(NOTHING)
    if not first:
        return which_run(None), options.pictures
    if is_file(Path(first) / CONFIG) or is_file_of_network(Path(first)):
        return Path(first), options.pictures
    is_picture = first == "-" or _is_pattern(first) or first.lower().endswith(SUFFIXES)
    if not is_picture and not os.path.lexists(first):
        raise RunError(f"{first}: expected a run or a picture, found nothing there")
    return which_run(None), (first, *options.pictures)


def _check(options: Options, pictures: tuple[str, ...]) -> int | None:
    """Refuse what cannot be done, and return how many pictures there are, None if not known."""
    if not pictures and options.data is None:
        raise ConfigError(NOTHING)
    if options.top < 1:
        raise ConfigError(f"--top: expected at least 1, found {options.top}")
    if options.sort_into is not None:
        if options.data is not None:
            raise ConfigError("--sort-into copies files; leave it out with --data")
        if any(map(_is_table, pictures)):
            raise ConfigError("--sort-into copies files; leave it out with tables of pixels")
        target = options.sort_into.resolve()
        for picture in pictures:
            if Path(picture).resolve() in (target, *target.parents) and is_folder(picture):
                raise ConfigError(
                    f"--sort-into: {options.sort_into} lies in {picture}, whose pictures are "
                    "answered about; choose another folder"
                )
    total = 0
    for picture in pictures:
        passed = PassedOver()
        if picture != "-" and not (found := sum(1 for _ in _found(picture, passed))):
            what = "matches this pattern" if _is_pattern(picture) else "lies in this folder"
            others = f"; {passed}" if passed.count else ""
            raise ConfigError(f"{picture}: no picture {what}{others}")
        total += 0 if picture == "-" else found
    return None if "-" in pictures else total


def _write_all(
    answers: Iterable[Prediction | Unread],
    write: Writer,
    sort_into: Path | None,
    total: int | None,
    tell: Listener,
) -> int:
    """Write answers as they come, and return how many pictures could not be read."""
    from deepcnn.cli.answers import copy_into
    from deepcnn.inference.classifier import Unread

    unread = 0
    for done, answer in enumerate(answers, 1):
        write(answer)
        if isinstance(answer, Unread):
            unread += 1
        elif sort_into is not None:
            copy_into(sort_into, answer)
        tell(Reading("answering", done, total))
    return unread


def _labelled(
    path: Path, options: Options, classifier: Classifier, tell: Listener
) -> tuple[str, Split, Source]:
    """Open the labelled split for the network of a run or of a file, with its labels."""
    data = options.data or ""
    if path.is_file():  # which has no settings of a run, and may need no torch
        from deepcnn.data.open import open_dataset
        from deepcnn.data.source import relabeled

        height, width, _ = classifier.image_shape
        dataset = open_dataset(
            DataSpec(data=data, image_size=(height, width), fit=classifier.form.fit), emit=tell
        )
        split: Split = options.split or ("test" if "test" in dataset.splits else "train")
        return data, split, relabeled(dataset.split(split), classifier.classes)
    from deepcnn.inference.evaluation import other_split
    from deepcnn.runs.run import Run
    from deepcnn.runs.trained_on import TrainedOn

    opened = Run.open(path)
    about = opened.config(), TrainedOn.read(opened)
    return data, *other_split(*about, data, options.split, tell)


def _answer_data(
    data: str,
    split: Split,
    source: Source,
    classifier: Classifier,
    write: Writer,
    tell: Listener,
) -> None:
    """Answer about every example of a labelled split, and say how many answers are right."""
    done = correct = 0
    for images, labels in source.blocks(SCORED_TOGETHER):
        names = [f"{data}/{split}/{done + i}" for i in range(len(labels))]
        for answer, label in zip(classifier.answer(images, names), labels, strict=True):
            write(answer)
            correct += answer.label == classifier.classes[label]
        done += len(labels)
        tell(Reading("answering", done, len(source)))
    say(f"accuracy {described(correct, done, f'{split} images')}", to="stderr")


def _is_pattern(picture: str) -> bool:
    return any(sign in picture for sign in "*?[") and not os.path.lexists(picture)


def _is_table(picture: str) -> bool:
    from deepcnn.data.formats.pixel_csv import SUFFIXES as TABLES

    return picture.lower().endswith(TABLES) and is_file(Path(picture))


def _found(picture: str, passed: PassedOver) -> Iterator[One]:
    """Yield the files that an argument means, by path; for a table of pixels, its images.

    `passed` counts the other files in folders.
    """
    from deepcnn.data.formats.pixel_csv import images_in
    from deepcnn.inference.classifier import pictures_below

    if _is_table(picture):
        yield from images_in(Path(picture))
        return
    if not _is_pattern(picture):
        yield from pictures_below(Path(picture), passed) if is_folder(picture) else [picture]
        return
    # not Path.glob, which raises an error for some patterns
    for path in sorted(glob.iglob(picture, recursive=True)):  # noqa: PTH207
        if not is_folder(path):
            yield path
        elif "**" not in picture:  # which matches what lies below, too
            yield from pictures_below(Path(path), passed)


def _paths(pictures: tuple[str, ...], passed: PassedOver) -> Iterator[One]:
    from deepcnn.inference.classifier import pictures_below

    for picture in pictures:
        if picture != "-":
            yield from _found(picture, passed)
            continue
        for path in _from_standard_input():
            yield from pictures_below(Path(path), passed) if is_folder(path) else [path]


def _from_standard_input() -> Iterator[str]:
    """Yield paths as they come; bytes of file names that are not UTF-8 are kept."""
    rest, separator = b"", b"\n"
    while piece := _piece():
        rest += piece
        if b"\0" in piece:
            separator = b"\0"  # then new lines are parts of names
        *whole, rest = rest.split(separator)
        yield from filter(None, (_name(name, separator) for name in whole))
        if len(rest) > LONGEST_NAME:
            raise ConfigError(
                "standard input: expected paths, one a line or apart by NUL, found "
                f"{len(rest):,} bytes without either"
            )
    yield from filter(None, [_name(rest, separator)])


def _piece() -> bytes:
    try:
        if sys.stdin is None:
            raise OSError("it is closed")
        return os.read(sys.stdin.fileno(), 1 << 16)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"standard input: expected paths, but cannot be read ({reason})"
        ) from error


def _name(name: bytes, separator: bytes) -> str:
    return os.fsdecode(name.removesuffix(b"\r") if separator == b"\n" else name)
