"""Write a network as one file, proved to answer the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from deepcnn.cli.arguments import own_network, which_run
from deepcnn.cli.importing import importing
from deepcnn.console import console, say, say_json
from deepcnn.intervals import described


@dataclass(frozen=True)
class Options:
    """Write a trained network as one file, proved to answer as its run does."""

    run: tyro.conf.Positional[Path | None] = None
    """Directory of the run; None: the newest below runs/."""
    to: Literal["onnx", "html", "safetensors"] = "onnx"
    """onnx: the whole way from pixels to probabilities, for any program that reads ONNX. Run and
    file both answer about every image that the run was scored on; the file appears only if they
    agree. html: a page that answers about a picture by itself, to send to a friend. safetensors:
    the weights, for deepcnn and for --start-from."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The file; None: export/model.onnx, .html or .safetensors in the run."""
    step: int | None = None
    """Step of the checkpoint. None: the best one, if the run keeps it; else the newest."""
    averaged: bool = True
    """Use the moving averages of the parameters, if the run keeps them."""
    data: str | None = None
    """For onnx: where the images that the run was scored on lie now, a name or a path; None: where
    the run says."""
    data_dir: Path | None = None
    """For onnx: folder of all data sets; None: the run's own."""
    device: str = "auto"
    """For onnx: where the run's own answers are computed: auto (cuda, else mps, else cpu), or any
    device that torch knows."""
    threads: int | None = None
    """For onnx: processor threads; None: torch's choice."""
    model: Annotated[str | None, tyro.conf.arg(name="model.name")] = None
    """Your own network, as package.module:function. Its code runs only if you name it here."""
    json: bool = False
    """Print events and the result as JSON, one on each line."""


def run(options: Options) -> int:
    """Export, and say what was found."""
    with importing():
        from deepcnn.exports import export

    path = which_run(options.run)
    with console(options.json) as tell:
        exported = export(
            path,
            options.to,
            out=options.out,
            step=options.step,
            averaged=options.averaged,
            model=own_network(options.model),
            device=options.device,
            threads=options.threads,
            data=options.data,
            data_dir=options.data_dir,
            emit=tell,
        )
    if options.json:
        say_json({"path": str(exported.path), **exported.record})
        return 0
    record = exported.record
    kind = "averaged parameters" if record["averaged"] else "raw parameters"
    say(f"Network:      step {record['step']:,}, {kind}")
    say(f"Written:      {exported.path} ({_size(record['bytes'])}{_beside(record)})")
    for line in PROOFS[options.to](record):
        say(line)
    return 0


def _of_onnx(record: dict[str, Any]) -> list[str]:
    """Return lines that tell how an ONNX file was proved."""
    version = record["versions"]["onnxruntime"]
    margin = record["at_margin"]
    either = f"; {margin} at the margin of a second look are answered as either" if margin else ""
    threads = record["threads"]
    one, many = record["milliseconds"]["one"], record["milliseconds"]["many"]
    return [
        f"Compared:     all {record['examples']:,} {record['split']} images by ONNX Runtime "
        f"{version}: no label differs, no probability by more than "
        f"{record['largest_difference']:.1g}{either}",
        f"Accuracy:     {_accuracy(record, 'run')} by the run",
        f"              {_accuracy(record, 'onnxruntime')} by ONNX Runtime",
        f"Milliseconds: one image {one['run']:.2f} by the run, {one['onnxruntime']:.2f} by ONNX "
        f"Runtime; {many['images']} images {many['run']:.1f} and {many['onnxruntime']:.1f} "
        f"({threads} thread{'s' * (threads != 1)})",
        "Beside it:    export.json, vectors.npz",
    ]


def _of_html(record: dict[str, Any]) -> list[str]:
    return [
        f"Compared:     with the network on {record['examples']} images: no probability differs by "
        f"more than {record['allowed_difference']:g}",
        "Open it in a browser, and drop a picture into it: it needs nothing else.",
    ]


def _of_safetensors(record: dict[str, Any]) -> list[str]:
    return [f"Compared:     {record['tensors']} tensors were read back, equal bit for bit"]


PROOFS = {"onnx": _of_onnx, "html": _of_html, "safetensors": _of_safetensors}


def _accuracy(record: dict[str, Any], who: str) -> str:
    return described(record["correct"][who], record["examples"], f"{record['split']} images")


def _beside(record: dict[str, Any]) -> str:
    before = record["checkpoint_bytes"]
    return "" if before is None else f"; the checkpoint has {_size(before)}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
