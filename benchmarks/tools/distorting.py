"""The tutorial's distorted batches, from any feed of a training set."""

from __future__ import annotations

import torch

from deepcnn.data.source import Source
from deepcnn.devices import Part
from deepcnn.inputs.feeds import Feed
from deepcnn.inputs.loader import Loader
from deepcnn.inputs.transform import Transform

BATCH = 128
SEED = 0
WAITING = 20_000  # examples in the shuffle buffer, as the reference's and tf.data's
WARM_UP, STEPS = 450, 1200  # as many to warm up as the peers; three epochs to measure
WHOLE = Part(0, 1, torch.device("cpu"))


def distorted(feed: Feed, source: Source) -> Loader:
    """Return what makes the distorted batch of a step, as TensorFlow's tutorial does."""
    transform = Transform.of(
        source, crop=0.75, pad=0, flip="random", contrast=(0.2, 1.8), standardize="image"
    )
    return Loader(feed, transform, seed=SEED, training_steps=WARM_UP + STEPS)
