"""How fast a trained network answers: by torch, and as an export by the runtimes for ONNX."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepcnn.data.formats.decoding import encode
from deepcnn.errors import RunError
from deepcnn.events import Listener, Noted, ignore
from deepcnn.inference.classifier import Classifier, Pixels
from deepcnn.inference.extras import is_installed
from deepcnn.inference.load import Runtime, load
from deepcnn.inference.runtimes import choose

MANY = 256  # images that are asked about together
CALLS = {MANY: 15, 1: 300}  # how often, of which the median counts
STARTS = 3
MATTERS = 1.05  # how many times as fast another runtime is, for that to be told

Precision = Literal["fp32", "bf16"]
Way = tuple[Runtime, Precision]
WAYS: tuple[Way, ...] = (
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)


@dataclass(frozen=True)
class Speed:
    """`one`: milliseconds for a single image; `many`: images/s, `MANY` at a time."""

    one: float
    many: float


@dataclass(frozen=True)
class Answering:
    """How long a runtime takes to answer.

    `start`: seconds from the start of `deepcnn predict` to its answer about a picture. `speeds`: by
    network, once it has started.
    """

    runtime: Runtime
    precision: Precision
    start: float
    speeds: dict[str, Speed]

    def seconds(self, images: int | None) -> float:
        """Return how long images take, including the start; None: each one of very many."""
        each = statistics.mean(1 / speed.many for speed in self.speeds.values())
        return each if images is None else self.start + each * (images - 1)


def measure(
    runs: Mapping[str, Path],
    images: Pixels,
    *,
    device: str = "auto",
    threads: int | None = None,
    emit: Listener = ignore,
) -> list[Answering]:
    """Measure each of `WAYS` that is installed, and write exports and a picture into the runs.

    `runs`: by the names of their networks. `images`: uint8 [N, H, W, C] for them, `MANY` or more.
    `device`: where torch computes. `emit`: hears what is being done.
    """
    exports = export_all(runs, emit)
    picture = next(iter(runs.values())) / "picture.png"
    picture.write_bytes(encode(images[0]))
    found = []
    for runtime, precision in WAYS:
        by_torch = runtime == "torch"
        paths = runs if by_torch else exports
        if not paths or not is_installed(runtime):
            continue
        emit(Noted(f"Measuring how fast {runtime} answers in {precision}"))
        first, *_ = paths.values()
        starts = [seconds_to_answer(first, picture, runtime, precision)[0] for _ in range(STARTS)]
        speeds = {}
        for name, path in paths.items():
            where = device if by_torch else "cpu"
            classifier = load(
                path, device=where, precision=precision, threads=threads, runtime=runtime
            )
            speeds[name] = speed_of(classifier, images)
        found.append(Answering(runtime, precision, statistics.median(starts), speeds))
    return found


def export_all(runs: Mapping[str, Path], emit: Listener) -> dict[str, Path]:
    """Write each run's network as an ONNX file, without proof; none if packages are missing."""
    missing = [name for name in ("onnx", "onnxscript") if not is_installed(name)]
    if missing:
        emit(Noted(f"Without {missing[0]} only torch answers: pip install 'deepcnn[export]'"))
        return {}
    from deepcnn.inference.export import about_of
    from deepcnn.inference.onnx_graph import to_onnx
    from deepcnn.inference.trained import Trained
    from deepcnn.runs.run import Run

    found = {}
    for name, path in runs.items():
        emit(Noted(f"Exporting {name}"))
        trained = Trained.open(Run.open(path), emit=emit)
        found[name] = path / "model.onnx"
        found[name].write_bytes(to_onnx(trained, about_of(trained, None)))
    return found


def otherwise(measured: Sequence[Answering]) -> list[str]:
    """Say in which cases another runtime for ONNX was faster than the choice of `auto`."""
    told = []
    for precision in ("fp32", "bf16"):
        fitting = [a for a in measured if (a.precision, a.runtime != "torch") == (precision, True)]
        for images, what in ((1, "one image"), (None, "many images")):
            taken = [a for a in fitting if a.runtime == choose(precision)]
            fastest = min(fitting, key=lambda a: a.seconds(images), default=None)
            if not taken or fastest is None:
                continue
            ratio = taken[0].seconds(images) / fastest.seconds(images)
            if ratio >= MATTERS:
                told.append(
                    f"Here {fastest.runtime} answers about {what} in {precision} {ratio:.2f} times "
                    f"as fast as {taken[0].runtime}, which auto takes: --runtime {fastest.runtime}"
                )
    return told


def speed_of(classifier: Classifier, images: Pixels) -> Speed:
    """Measure how fast a network answers about images uint8 [N, H, W, C], `MANY` or more."""
    seconds = {count: _median_seconds(classifier, images[:count]) for count in CALLS}
    return Speed(1000 * seconds[1], MANY / seconds[MANY])


def _median_seconds(classifier: Classifier, images: Pixels) -> float:
    """Return how long an answer about images takes, after some calls to warm up."""
    calls = CALLS[len(images)]
    took = []
    for _ in range(calls // 10 + calls):
        began = time.perf_counter()
        classifier.probabilities(images)
        took.append(time.perf_counter() - began)
    return statistics.median(took[calls // 10 :])


def seconds_to_answer(
    path: Path, picture: Path, runtime: Runtime, precision: Precision = "fp32"
) -> tuple[float, float]:
    """Return how long `deepcnn predict` takes from its start to the answer, and to its end.

    `path`: a run or an exported file. It runs on the processor. Raises RunError if no answer comes.
    """
    command = [sys.executable, "-m", "deepcnn", "predict", str(path), str(picture)]
    command += ["--runtime", runtime, "--precision", precision]
    command += ["--device", "cpu", "--format", "jsonl"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        answered = time.perf_counter() - began
        process.wait()
    if not answer:
        raise RunError(f"{' '.join(command)}: there was no answer")
    return answered, time.perf_counter() - began
