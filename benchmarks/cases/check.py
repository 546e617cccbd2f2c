"""Guards against slowing down: compares ratios of times with the committed ones in check.json.

    python benchmarks/run.py check            # fails where a ratio is worse than the margin allows
    python benchmarks/run.py check --write    # commits to what is found now

A ratio is the cost of a part of deepcnn divided by that of a yardstick: the same written plainly,
or work that never changes. Both take turns in this process, so that what else the machine does
meets both, and the median over the rounds is taken. Smaller is better. Seconds are never compared.
The cost is processor time on one thread: several threads would wait for one another wherever the
machine is busy. So what only makes less use of a second core is not seen. Processors differ in what
they are good at, so each model, told by name and family, has ratios of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepcnn import presets
from deepcnn.data.source import Source, in_memory
from deepcnn.data.synthetic import synthetic
from deepcnn.devices import Part, Place
from deepcnn.engines.engine import Job
from deepcnn.engines.single import Single
from deepcnn.hardware import float32_products, keep_freed_memory
from deepcnn.inference.answers import Answers
from deepcnn.inference.scoring import BATCH, blocks_to_score, score
from deepcnn.inputs.draws import Draws
from deepcnn.inputs.transform import Transform
from deepcnn.learning.assembly import make_state
from deepcnn.learning.state import TrainState
from deepcnn.models.build import build_model, network
from deepcnn.models.network import INITIAL_IMAGES, initialize
from deepcnn.team.team import Team
from tools import program, report
from tools.program import BENCHMARKS

FILE = BENCHMARKS / "check.json"
MARGIN = 0.15  # above the spread of a ratio from one run of the check to the next
MATRIX = 2048  # rows and columns of the product that is a yardstick
PRODUCTS = 3  # take about as long as a step of `quick`

Pair = tuple[Callable[[], float], Callable[[], float]]  # each tells what it cost


class PlainTutorial(nn.Module):
    """The tutorial network of torch's own layers, with the parameters' names of deepcnn's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 64, 5, padding=2)
        self.local3 = nn.Linear(6 * 6 * 64, 384)
        self.local4 = nn.Linear(384, 192)
        self.softmax_linear = nn.Linear(192, 10)
        # torch divides the sum over the window by its size.
        self.norm = nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, 24, 24] to logits [N, 10]."""
        x = self.norm(same_max_pool(F.relu(self.conv1(images))))
        x = same_max_pool(self.norm(F.relu(self.conv2(x))))
        x = x.permute(0, 2, 3, 1).flatten(1)
        return self.softmax_linear(F.relu(self.local4(F.relu(self.local3(x)))))


def same_max_pool(x: Tensor) -> Tensor:
    """Pool 3×3 with stride 2 and TensorFlow's SAME padding, for even sizes and x not below 0."""
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)


def distort_plainly(transform: Transform, images: Tensor, draws: Draws) -> Tensor:
    """Do what `transform.train` does for the tutorial, image by image, as one reads it."""
    assert draws.contrast is not None
    height, width = transform.crop_height, transform.crop_width
    done = []
    for image, row, column, flip, factor in zip(
        images, draws.row, draws.column, draws.flip, draws.contrast, strict=True
    ):
        x = image[row : row + height, column : column + width].to(torch.float32)
        if flip:
            x = x.flip(1)
        centre = x.mean((0, 1))
        x = (x - centre) * factor + centre
        deviation = x.std(correction=0).clamp_min(x.numel() ** -0.5)
        done.append((x - x.mean()) / deviation)
    return torch.stack(done).permute(0, 3, 1, 2)


def tutorial_step() -> Pair:
    """Compare forward and backward through the tutorial network with torch's own layers."""
    images = torch.randn(128, 3, 24, 24).to(memory_format=torch.channels_last)
    labels = torch.arange(128) % 10

    def step(model: nn.Module) -> Callable[[], float]:
        def forward_and_backward() -> None:
            model.zero_grad()
            F.cross_entropy(model(images), labels).backward()

        return lambda: seconds(forward_and_backward)

    return step(build_model("tutorial")), step(PlainTutorial())


def distorted_inputs() -> Pair:
    """Compare a distorted batch, its random choices included, with one image after another."""
    source = in_memory(synthetic("train"))
    transform = Transform.of(source, **dataclasses.asdict(presets.tutorial().inputs))
    images = torch.from_numpy(source.first_images(128))
    index, epoch = torch.arange(128), torch.zeros(128, dtype=torch.int64)

    def draw() -> Draws:
        return transform.draw(0, index=index, epoch=epoch, position=index)

    draws = draw()

    def ours() -> None:
        for _ in range(10):  # a batch alone is too short to be timed
            transform.train(images, draw())

    return (
        lambda: seconds(ours) / 10,
        lambda: seconds(lambda: distort_plainly(transform, images, draws)),
    )


def quick_step() -> Pair:
    """Compare a step of the preset quick, its optimizers included, with products of matrices."""
    config = presets.quick()
    source = in_memory(synthetic("train"))
    transform, state = prepared(source)
    images = transform.evaluate(torch.from_numpy(source.first_images(config.batch_size)))
    labels = torch.arange(config.batch_size) % 10

    def load(step: int, part: Part) -> tuple[Tensor, Tensor]:  # noqa: ARG001 (always the same)
        return images, labels

    job = Job(load, config.batch_size, lambda step: 1e-3, config.label_smoothing)  # noqa: ARG005
    engine = Single(state, Place.choose("cpu", "fp32"), job)
    a, b = torch.randn(2, MATRIX, MATRIX)

    def step() -> None:
        engine.step()
        state.forget_gradients()

    def products() -> None:
        for _ in range(PRODUCTS):
            a @ b

    return lambda: seconds(step), lambda: seconds(products)


def scoring() -> Pair:
    """Compare scoring with the network of quick with the loop that anyone would write."""
    source = in_memory(synthetic("train").select(slice(BATCH)))
    transform, state = prepared(source)
    (shard,) = source.shards
    place = Place.choose("cpu", "fp32")
    values = math.prod(transform.shape)

    @torch.no_grad()
    def plainly() -> None:
        state.model.eval()
        correct = 0
        for images, labels in shard.blocks(0, len(shard), BATCH):
            logits = state.model(transform.evaluate(torch.from_numpy(images)))
            correct += int((logits.argmax(1) == torch.from_numpy(labels)).sum())

    def ours() -> None:  # with what it takes to prepare the network, as in each evaluation
        answers = Answers(state.model, transform, place)
        score(answers, lambda: blocks_to_score(source, values, place, Team()))

    return (
        lambda: seconds(ours),
        lambda: seconds(plainly),
    )


def prepared(source: Source) -> tuple[Transform, TrainState]:
    """Return the transform of the preset quick for a data set, and its state before any step."""
    config = presets.quick()
    transform = Transform.of(source, **dataclasses.asdict(config.inputs))
    model = network(
        config.model,
        None,
        shape=transform.shape,
        classes=len(source.classes),
        seed=config.seed,
    )
    first = torch.from_numpy(source.first_images(INITIAL_IMAGES))
    initialize(model, lambda: [transform.evaluate(first)])
    state = make_state(config, model)
    state.model.train()
    return transform, state


def processes(ours: tuple[str, ...], yardstick: tuple[str, ...]) -> Pair:
    """Compare two Python processes, by their arguments."""
    return (
        lambda: cost_of_process([sys.executable, *ours]),
        lambda: cost_of_process([sys.executable, *yardstick]),
    )


def seconds(compute: Callable[[], object]) -> float:
    """Return the processor time that something takes."""
    began = time.process_time()
    compute()
    return time.process_time() - began


def cost_of_process(command: list[str]) -> float:
    """Return the instructions of a process where they can be counted, else its processor time."""
    if counts_instructions():
        return float(instructions(command) or "nan")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def instructions(command: list[str]) -> int | None:
    """Count the instructions of a process with perf, or return None where that cannot be."""
    if shutil.which("perf") is None:
        return None
    perf = ["perf", "stat", "-x", ",", "-e", "instructions", "--", *command]
    done = subprocess.run(perf, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    counted = done.stderr.strip().rpartition("\n")[2].partition(",")[0]
    return int(counted) if done.returncode == 0 and counted.isdecimal() else None


@functools.cache
def counts_instructions() -> bool:
    """Tell whether instructions can be counted here."""
    return instructions([sys.executable, "-c", ""]) is not None


def parts() -> dict[str, tuple[Callable[[], Pair], int]]:
    """Return what is compared, by name, and in how many rounds."""
    by = "instructions" if counts_instructions() else "processor time"
    return {
        "step of tutorial / torch's own layers": (tutorial_step, 15),
        "distorted inputs / image by image": (distorted_inputs, 41),
        "step of quick / matrix products": (quick_step, 15),
        "scoring of quick / plain loop": (scoring, 15),
        f"deepcnn --help / import numpy, {by}": (
            partial(processes, ("-m", "deepcnn", "--help"), ("-c", "import numpy")),
            15,
        ),
        # All that a training needs, under the name that the committed ratios have.
        f"import deepcnn.training / import torch, {by}": (
            partial(processes, ("-c", "import deepcnn.training.start"), ("-c", "import torch")),
            5,
        ),
    }


def ratio(pair: Pair, rounds: int) -> float:
    """Return the cost of the first by that of the second, the median over the rounds."""
    ours, yardstick = pair
    ours(), yardstick()  # to warm up
    return statistics.median(ours() / yardstick() for _ in range(rounds))


def compare(committed: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Return a line for each ratio that is worse than the committed one by more than the margin.

    A ratio that only one of both has is not compared: a machine may count what another cannot.
    """
    return [
        f"{name}: committed {committed[name]:.3f}, found {found[name]:.3f}, "
        f"{found[name] / committed[name] - 1:+.0%}, where {MARGIN:+.0%} is allowed"
        for name in found
        if name in committed and not found[name] <= committed[name] * (1 + MARGIN)
    ]


def main(arguments: list[str]) -> int:
    """Measure all ratios; store them, or compare them with the stored ones."""
    parser = program.parser("check", __doc__)
    parser.add_argument("--write", action="store_true", help="write check.json anew")
    write = parser.parse_args(arguments).write
    torch.set_num_threads(1)
    about = report.circumstances()
    processor = about["environment"]["processor"]
    stored = json.loads(FILE.read_text()) if FILE.exists() else {}
    if not write and processor not in stored:
        sys.exit(
            f"{FILE}: expected ratios of this processor, {processor}; found those of "
            f"{', '.join(stored) or 'none'}. Commit to what is found at a state that is known to "
            "be fast: python benchmarks/run.py check --write"
        )
    found = measure(None if write else stored[processor]["ratios"])
    if write:
        of_this = {"what": "cost by that of a yardstick", **about, "ratios": found}
        report.store(stored | {processor: of_this}, FILE)
    elif worse := compare(stored[processor]["ratios"], found):
        sys.exit("slower than committed:\n" + "\n".join(worse))
    return 0


def measure(committed: Mapping[str, float] | None) -> dict[str, float]:
    """Measure all ratios, and print them beside the committed ones, where these are wanted."""
    keep_freed_memory()
    found = {}
    for name, (make, rounds) in parts().items():
        with float32_products(torch.device("cpu")):
            found[name] = round(ratio(make(), rounds), 4)
        known = ""
        if committed is not None:
            beside = f"committed {committed[name]:.3f}" if name in committed else "not compared"
            known = f" ({beside})"
        print(f"{found[name]:.3f}  {name}{known}", flush=True)
    return found
