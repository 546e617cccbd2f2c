"""Say what is on pictures, with a trained network."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.config import DataSpec
from deepcnn.console import console
from deepcnn.errors import ConfigError
from deepcnn.events import Reading
from deepcnn.intervals import described

if TYPE_CHECKING:
    from deepcnn.cli.answers import Writer
    from deepcnn.data.splits import Split
    from deepcnn.inference.classifier import Classifier

UNREAD = 3  # exit status where some pictures could not be read
SCORED_TOGETHER = 500  # as `evaluate` does, so that both round alike


@dataclass(frozen=True)
class Options:
    """Say what is on pictures, with a trained network."""

    run: tyro.conf.Positional[str]
    """Directory of the run, or a file of deepcnn export, .onnx or .safetensors; or the first
    picture: then the newest run below runs/ answers."""
    pictures: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, folders with all below them, patterns such as 'photos/*.png', or - for paths on
    standard input, one a line or apart by NUL."""
    data: str | None = None
    """A labelled data set instead: a name or a path."""
    split: Literal["train", "validation", "test"] = "test"
    """With --data: which examples."""
    format: Literal["table", "csv", "json", "jsonl"] | None = None
    """None: a table on a terminal, else CSV."""
    top: int = 3
    """Classes that the table shows of each picture."""
    all: bool = False
    """Show all classes in the table."""
    out: Path | None = None
    """File for the answers; None: standard output."""
    sort_into: Path | None = None
    """Copy each picture into the folder of its class below this one, and those that are unsure
    into unsure/. Nothing is overwritten."""
    step: int | None = None
    """Step of the checkpoint; None: the newest."""
    averaged: bool = True
    """Use the moving averages of the parameters, where the run keeps them."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or any device that torch knows."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the multiplications; bf16 is faster where the hardware has it."""
    threads: int | None = None
    """Processor threads; None: the runtime's choice."""
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    """What computes. auto: torch for a run and for weights; for an ONNX file ONNX Runtime, or
    OpenVINO in bf16."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """A network of your own, named again as package.module:function: else its code does not run."""


def run(options: Options) -> int:
    """Answer about every picture, in order; 3 where some could not be read."""
    from deepcnn.cli.answers import copy_into, writer
    from deepcnn.inference.classifier import Unread
    from deepcnn.inference.load import is_file_of_network, load
    from deepcnn.runs.find import is_run

    is_named = is_run(Path(options.run)) or is_file_of_network(Path(options.run))
    pictures = options.pictures if is_named else (options.run, *options.pictures)
    path = which_run(Path(options.run) if is_named else None)
    if not pictures and options.data is None:
        raise ConfigError("predict: expected pictures, a folder, - or --data, found none")
    classifier = load(
        path,
        step=options.step,
        averaged=options.averaged,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        runtime=options.runtime,
        model=own_network(options.model),
    )
    form = options.format or ("table" if _on_terminal(options) else "csv")
    top = None if options.all else options.top
    unread = 0
    with writer(form, options.out, classifier.classes, top) as write:
        if options.data is not None:
            _answer_data(options.data, options.split, classifier, write)
        for answer in classifier.try_predict(_paths(pictures)) if pictures else ():
            write(answer)
            if isinstance(answer, Unread):
                unread += 1
            elif options.sort_into is not None:
                copy_into(options.sort_into, answer)
    return UNREAD if unread else 0


def _answer_data(data: str, split: Split, classifier: Classifier, write: Writer) -> None:
    """Answer about every example of a labelled split, and say how many answers are right."""
    from deepcnn.data.open import open_dataset
    from deepcnn.data.source import relabeled

    height, width, _ = classifier.image_shape
    spec = DataSpec(data=data, image_size=(height, width))
    with console(as_json=False, stream=sys.stderr) as tell:
        source = open_dataset(spec, emit=tell).split(split)
        labels_of_run = relabeled(source, classifier.classes)
        done = correct = 0
        for images, labels in labels_of_run.blocks(SCORED_TOGETHER):
            names = [f"{data}/{split}/{done + i}" for i in range(len(labels))]
            for answer, label in zip(classifier.answer(images, names), labels, strict=True):
                write(answer)
                correct += answer.label == classifier.classes[label]
            done += len(labels)
            tell(Reading("answering", done, len(source)))
    print(f"accuracy {described(correct, done, f'{split} images')}", file=sys.stderr)


def _on_terminal(options: Options) -> bool:
    return options.out is None and sys.stdout.isatty()


def _paths(pictures: tuple[str, ...]) -> Iterator[str]:
    for picture in pictures:
        if picture == "-":
            yield from _from_standard_input()
        elif any(sign in picture for sign in "*?[") and not Path(picture).exists():
            anchor = Path(picture).anchor
            found = sorted(map(str, Path(anchor or ".").glob(picture.removeprefix(anchor))))
            if not found:
                raise ConfigError(f"{picture}: no picture matches this pattern")
            yield from found
        else:
            yield picture


def _from_standard_input() -> Iterator[str]:
    """Yield paths as they come: bytes of file names that are no UTF-8 are kept."""
    rest = b""
    with contextlib.suppress(KeyboardInterrupt):
        while piece := os.read(sys.stdin.fileno(), 1 << 16):
            rest += piece
            separator = b"\0" if b"\0" in rest else b"\n"
            *whole, rest = rest.split(separator)
            yield from (os.fsdecode(name.rstrip(b"\r")) for name in whole if name)
    if rest.strip():
        yield os.fsdecode(rest.rstrip(b"\r"))
