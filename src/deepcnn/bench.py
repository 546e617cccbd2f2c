"""How fast this machine distorts, trains, scores and answers, and where the time of a step goes.

Nothing is fetched. If CIFAR-10 is not on disk, the synthetic data set is used instead; its images
have the same shape.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcnn import presets
from deepcnn.config import Config
from deepcnn.data.fetch import verify
from deepcnn.data.open import SYNTHETIC, open_dataset
from deepcnn.data.source import Source
from deepcnn.devices import Part, Place, describe_environment, use_threads
from deepcnn.events import Event, Listener, Noted, Stepped, ignore
from deepcnn.hardware import float32_products, keep_freed_memory
from deepcnn.inference import speed
from deepcnn.inference.evaluation import Scorer
from deepcnn.inputs.feeds import Preloaded
from deepcnn.inputs.loader import Loader
from deepcnn.inputs.shuffle import Shuffle
from deepcnn.inputs.transform import Transform
from deepcnn.models.build import build_model
from deepcnn.training.start import train

T = TypeVar("T")

GROUP = 10  # steps, or batches, that are timed together
WARM_UP = 20  # steps, or batches, that do not count


@dataclass(frozen=True)
class Plan:
    """What is measured, and how much of it.

    `presets`: those that are trained, scored and asked. For the first one, the inputs alone and
    each layer are measured, too. `steps`: of each training. `batches`: for the inputs alone.
    `repetitions`: of each layer, and of the operations that give the machine's limit. `matrix`:
    rows and columns of the large product.
    """

    presets: tuple[str, ...] = ("tutorial", "quick")
    steps: int = 121
    batches: int = 1500
    repetitions: int = 20
    matrix: int = 2048


@dataclass(frozen=True)
class Limits:
    """The best that was seen of this machine, in GFLOP/s."""

    matrix_product: float
    convolution: float

    @property
    def best(self) -> float:
        """The higher one of both; a layer's speed is compared with it."""
        return max(self.matrix_product, self.convolution)


@dataclass(frozen=True)
class Pass:
    """A layer's forward or backward pass over a batch.

    `milliseconds`: the median. `gigaflops`: the operations of the definition, by the shapes, in
    10⁹; None for a layer that does not multiply matrices. `share`: of the machine's limit, or None.
    It may exceed 1 for an algorithm that needs fewer operations than the definition.
    """

    milliseconds: float
    gigaflops: float | None
    share: float | None


@dataclass(frozen=True)
class Layer:
    """What a layer of the network costs in a step of training."""

    name: str
    forward: Pass
    backward: Pass


@dataclass(frozen=True)
class Report:
    """All figures, with images at their full size.

    `data`: the name of the data set; `rates`: images/s; `answering`: by each runtime; `layers`: in
    the order of their use.
    """

    data: str
    rates: dict[str, float]
    answering: tuple[speed.Answering, ...]
    limits: Limits
    layers: tuple[Layer, ...]
    environment: dict[str, Any]


def measure(
    device: str = "auto",
    threads: int | None = None,
    *,
    plan: Plan | None = None,
    emit: Listener = ignore,
) -> Report:
    """Measure this machine; `emit` hears what is being measured, and on which data.

    `device`, `threads`: as in a configuration. Raises ConfigError for a device that is not here,
    and KeyboardInterrupt if it is told to stop.
    """
    plan = plan or Plan()
    use_threads(threads)
    keep_freed_memory()
    place = Place.choose(device, "auto")
    on_disk = not any(verify("cifar10").values())
    data = "cifar10" if on_disk else SYNTHETIC
    if not on_disk:
        emit(
            Noted(
                "CIFAR-10 is not on disk, so synthetic images of the same shape are used. For the "
                "real ones: deepcnn data fetch cifar10"
            )
        )
    configs = {
        name: dataclasses.replace(_short(name, plan), data=data, device=device, threads=threads)
        for name in plan.presets
    }
    first = configs[plan.presets[0]]
    source = open_dataset(data).split("train")
    transform = Transform.of(source, **dataclasses.asdict(first.inputs))
    emit(Noted("Measuring distorted inputs"))
    rates = {"distorted inputs": distorting(source, transform, first, place, plan.batches)}
    asked = source.first_images(speed.MANY)
    more, answering = _rates_and_answering(configs, asked, emit)
    rates |= more
    emit(Noted(f"Measuring the layers of {first.preset}"))
    model = build_model(first.model.name, shape=transform.shape, widths=first.model.widths)
    images = transform.evaluate(torch.from_numpy(source.first_images(first.batch_size)))
    with float32_products(place.device):
        limits = find_limits(place, plan.matrix, plan.repetitions)
        layers = tuple(time_layers(model, images, place, limits, plan.repetitions))
    return Report(
        data=data,
        rates=rates,
        answering=tuple(answering),
        limits=limits,
        layers=layers,
        environment=describe_environment(place),
    )


def _rates_and_answering(
    configs: Mapping[str, Config], images: NDArray[np.uint8], emit: Listener
) -> tuple[dict[str, float], list[speed.Answering]]:
    """Train, score and ask the networks of presets; `images`: of their data."""
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        runs = {name: Path(scratch) / name for name in configs}
        for name, config in configs.items():
            emit(Noted(f"Measuring the training of {name}"))
            rates[f"training {name}"] = training_rate(config, runs[name])
            emit(Noted(f"Measuring the scoring of {name}"))
            rates[f"scoring {name}"] = scoring_rate(config, runs[name])
        answering = speed.measure(
            runs, images, device=config.device, threads=config.threads, emit=emit
        )
    return rates, answering


def _short(name: str, plan: Plan) -> Config:
    """Return a preset that trains for a few steps, in equal groups."""
    config = presets.PRESETS[name]()
    return dataclasses.replace(
        config,
        inputs=dataclasses.replace(config.inputs, scales=()),
        steps=plan.steps,
        log_every=GROUP,
        summary_every=0,
    )


def distorting(
    source: Source, transform: Transform, config: Config, place: Place, batches: int
) -> float:
    """Return how many images in memory are distorted per second."""
    arrays = source.load()
    shuffle = Shuffle.full(config.seed, len(arrays))
    feed = Preloaded(arrays, shuffle, batch_size=config.batch_size)
    distorted = Loader(feed, transform, seed=config.seed, training_steps=config.steps)
    whole = Part(0, 1, place.device)

    def group(start: int) -> None:
        for step in range(start, start + GROUP):
            distorted.load(step, whole)

    starts = range(0, WARM_UP + batches, GROUP)
    seconds = [_timed(place, partial(group, start))[1] for start in starts]
    return GROUP * config.batch_size / statistics.median(seconds[WARM_UP // GROUP :])


def training_rate(config: Config, run: Path) -> float:
    """Return how many images a training, kept in `run`, sees per second: the median of groups."""
    rates: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step > WARM_UP:
            rates.append(event.examples_per_second)

    if train(config, run_dir=run, emit=listen).evaluated is None:
        raise KeyboardInterrupt  # the training took the signal, saved, and returned
    return statistics.median(rates)


def scoring_rate(config: Config, run: Path) -> float:
    """Return how many test images are scored per second, with the run's newest checkpoint."""
    scorer = Scorer(
        run,
        "test",
        averaged=True,
        examples=None,
        device=config.device,
        threads=config.threads,
        data_dir=None,
        emit=ignore,
    )
    began = time.perf_counter()
    evaluated = scorer.once()
    return evaluated.total / (time.perf_counter() - began)


def find_limits(place: Place, matrix: int, repetitions: int) -> Limits:
    """Measure a product of two square matrices, and a 5×5 convolution of 64 to 64 channels.

    The convolution's input is that of the tutorial's second one, 128 images of 12×12, and its
    kernel torch's own.
    """
    a, b = torch.randn(2, matrix, matrix, device=place.device)
    images, filters = torch.randn(128, 64, 12, 12), torch.randn(64, 64, 5, 5)
    images, filters = (
        values.to(place.device, memory_format=torch.channels_last) for values in (images, filters)
    )

    def best(count: int, compute: Callable[[], Tensor]) -> float:
        with torch.no_grad(), place.autocast():
            return count / 1e9 / min(_timed(place, compute)[1] for _ in range(repetitions))

    return Limits(
        matrix_product=best(2 * matrix**3, lambda: a @ b),
        convolution=best(
            2 * images.numel() * filters[0].numel(), lambda: F.conv2d(images, filters, padding=2)
        ),
    )


def time_layers(
    model: nn.Module, images: Tensor, place: Place, limits: Limits, repetitions: int
) -> list[Layer]:
    """Time each layer of a network, the children of `model`, in the order of their use.

    `images`: float32 [N, C, H, W], the network's input, for which no gradient is computed.
    """
    names = {layer: name for name, layer in model.named_children()}
    seen: list[tuple[nn.Module, Tensor]] = []

    def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append((layer, arguments[0].detach()))

    hooks = [layer.register_forward_pre_hook(keep) for layer in names]
    model.to(place.device).train()
    with torch.no_grad(), place.autocast():
        model(images.to(place.device))
    for hook in hooks:
        hook.remove()
    found: list[Layer] = []
    for layer, x in seen:
        x.requires_grad_(bool(found))
        count, forward, backward = _time_layer(layer, x, place, repetitions)
        # Backward as many operations again for the weights' gradient as for the input's.
        gradients = 2 if found else 1
        found.append(
            Layer(
                names[layer],
                _pass(forward, count, limits),
                _pass(backward, count and gradients * count, limits),
            )
        )
    return found


def _time_layer(
    layer: nn.Module, x: Tensor, place: Place, repetitions: int
) -> tuple[int | None, float, float]:
    """Return the operations forward, and the median of the seconds forward and backward."""
    wanted = [*layer.parameters(), *([x] if x.requires_grad else [])]
    forward, backward = [], []
    for _ in range(repetitions):
        with place.autocast():
            y, seconds = _timed(place, partial(layer, x))
        forward.append(seconds)
        dense = torch.randn_like(y.detach().to_dense())
        gradient = dense.to_mkldnn() if y.is_mkldnn else dense
        _, seconds = _timed(place, partial(torch.autograd.grad, y, wanted, gradient))
        backward.append(seconds)
    return operations(layer, y), statistics.median(forward), statistics.median(backward)


def operations(layer: nn.Module, output: Tensor) -> int | None:
    """Count the additions and multiplications of a convolution or a fully connected layer.

    `output`: its output for a batch. For any other layer, which does not multiply matrices by its
    definition, return None.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return 2 * output.numel() * layer.weight[0].numel()
    return None


def _pass(seconds: float, count: int | None, limits: Limits) -> Pass:
    if count is None:
        return Pass(seconds * 1e3, None, None)
    return Pass(seconds * 1e3, count / 1e9, count / 1e9 / seconds / limits.best)


def _timed(place: Place, compute: Callable[[], T]) -> tuple[T, float]:
    """Return the result, and the seconds until the device has computed it."""
    _wait_for(place)
    began = time.perf_counter()
    result = compute()
    _wait_for(place)
    return result, time.perf_counter() - began


def _wait_for(place: Place) -> None:
    if place.device.type != "cpu":
        torch.accelerator.synchronize(place.device)
