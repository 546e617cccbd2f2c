"""Compares an exported network with its run, on every image that the run was scored on."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepcnn.data.source import Source
from deepcnn.inference.answered import Answered
from deepcnn.inference.answers import Answers, margins
from deepcnn.inference.calibration import Floats, probabilities
from deepcnn.inference.onnx_file import OnnxNetwork

MOST_APART = 1e-4  # by which a probability may differ
NEAR = 1e-3  # of the margin below which an image is looked at again: rounding decides there
VECTORS = 10  # images that are kept with their answers
MANY, TURNS = 256, 5  # images that are timed together; how often

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Proof:
    """How far the answers of a file are from those of its run, over `examples` images.

    `differing`: images with a probability that differs by more than `MOST_APART`. `labels`: how
    many of these have another label. `largest`: the largest difference of a probability.
    `at_margin`: images for which rounding decides whether they are looked at again, and whose
    answer is one of these two. `correct`: how many the file answers correctly. `vectors`: some
    images, uint8 [k, H, W, C]. `vector_places`: their places in the split, int64 [k].
    """

    examples: int
    differing: int
    labels: int
    largest: float
    at_margin: int
    correct: int
    vectors: Pixels
    vector_places: NDArray[np.int64]

    @property
    def holds(self) -> bool:
        """Whether no answer differs."""
        return not self.differing


def prove(
    network: OnnxNetwork, source: Source, answered: Answered, answers: Callable[[], Answers]
) -> Proof:
    """Compare the answers of a file's network and of its run about all images of a split.

    `answers`: gives the run's network, for images at the margin. Labels can differ only if
    probabilities do, or if the two largest are less than twice `MOST_APART` apart. The images that
    are kept are also answered one by one.
    """
    ours = answered.probabilities()
    theirs = np.empty_like(ours)
    places = np.unique(np.linspace(0, len(ours) - 1, VECTORS).astype(np.int64))
    vectors = np.empty((len(places), *source.shape), np.uint8)
    at_margin = at = 0
    for images, _ in source.blocks():
        here = slice(at, at + len(images))
        theirs[here] = network.answers(images)[0]
        far = np.flatnonzero(_apart(theirs[here], ours[here]) > MOST_APART)
        if len(far):
            either = _is_at_margin(answers(), images[far], theirs[here][far], answered)
            ours[here][far[either]] = theirs[here][far[either]]
            at_margin += int(either.sum())
        inside = np.flatnonzero((places >= here.start) & (places < here.stop))
        vectors[inside] = images[places[inside] - at]
        at += len(images)
    alone = np.concatenate([network.answers(vectors[i : i + 1])[0] for i in range(len(vectors))])
    apart = _apart(theirs, ours)
    apart[places] = np.maximum(apart[places], _apart(alone, theirs[places]))
    differing = apart > MOST_APART
    labels = theirs.argmax(1)
    return Proof(
        examples=len(ours),
        differing=int(differing.sum()),
        labels=int((differing & (labels != answered.predicted)).sum()),
        largest=float(apart.max()),
        at_margin=at_margin,
        correct=int((labels == answered.labels).sum()),
        vectors=vectors,
        vector_places=places,
    )


def milliseconds(logits: Callable[[Pixels], Floats], images: Pixels) -> float:
    """Return how long an answer about images takes: the median of a few, after a first one."""
    logits(images)
    took = []
    for _ in range(TURNS):
        began = time.perf_counter()
        logits(images)
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def _apart(these: Floats, those: Floats) -> NDArray[np.float64]:
    """Return the largest difference of each row; a NaN counts as infinitely far away."""
    apart = np.abs(these.astype(np.float64) - those).max(1)
    return np.where(np.isnan(apart), np.inf, apart)


@torch.no_grad()
def _is_at_margin(
    answers: Answers, images: Pixels, theirs: Floats, answered: Answered
) -> NDArray[np.bool_]:
    """Tell for which images rounding may decide on a second look, and the answer is one of both."""
    if answers.transform.views != "unsure" or answers.margin is None:
        return np.zeros(len(images), np.bool_)
    there = torch.from_numpy(images).to(answers.place.device)
    once = answers.first_look(there)
    near = ((margins(once) - answers.margin).abs() < NEAR).cpu().numpy()
    always = copy.copy(answers)
    always.margin = None
    fits = [
        _apart(theirs, probabilities(logits.cpu().numpy(), _temperature(answered))) <= MOST_APART
        for logits in (once, always.second_look(there, once))
    ]
    found: NDArray[np.bool_] = near & (fits[0] | fits[1])
    return found


def _temperature(answered: Answered) -> float:
    return answered.calibration.temperature if answered.calibration is not None else 1.0
