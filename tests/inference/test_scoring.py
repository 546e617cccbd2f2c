from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from deepcnn.data.open import load_dataset, open_dataset
from deepcnn.data.source import in_memory
from deepcnn.devices import Place
from deepcnn.inference import scoring
from deepcnn.inference.answers import Answers
from deepcnn.inference.scoring import (
    VALUES_ON_GPU,
    blocks_to_score,
    examples_at_a_time,
    score,
    splits_to_score,
)
from deepcnn.models.build import build_model
from deepcnn.team.team import Team
from tests.helpers.tiny import CPU, TINY, tiny, transform_of

PLACE = Place(CPU, "fp32")


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_every_example_counts_once_whatever_the_batch(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "BATCH", batch)
    arrays = load_dataset("synthetic", "test")
    transform = transform_of(TINY)
    model = build_model("tutorial", widths=(8, 8, 32, 16)).eval()
    with torch.no_grad():
        logits = model(transform.evaluate(torch.from_numpy(arrays.images))).double().numpy()
    right = logits.argmax(1) == arrays.labels
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    entropy = -log_p[np.arange(len(arrays)), arrays.labels]
    values = math.prod(transform.shape)
    for count in (1, 2, 33, 512):
        some = in_memory(arrays.select(slice(0, count)))
        blocks = [*blocks_to_score(some, values, PLACE, Team())]
        assert [len(labels) for _, labels in blocks][:-1] == [batch] * (len(blocks) - 1)
        found = score(Answers(model, transform, PLACE), partial(iter, blocks))
        assert (found.correct, found.total) == (int(right[:count].sum()), count)
        assert found.loss == pytest.approx(entropy[:count].mean(), rel=1e-5)


def test_a_gpu_scores_equal_blocks_of_images_that_fit() -> None:
    gpu = Place(torch.device("cuda"), "bf16")
    assert VALUES_ON_GPU == 2**24
    assert examples_at_a_time(10_000, 3 * 32 * 32, gpu) == 5000
    assert examples_at_a_time(512, 3 * 32 * 32, gpu) == 512
    assert examples_at_a_time(10_000, 3 * 224 * 224, gpu) <= 2**24 // (3 * 224 * 224)
    assert examples_at_a_time(3, 2**25, gpu) == 1


def test_the_last_split_that_is_scored_is_the_one_that_counts() -> None:
    for config, expected in (
        (tiny(), ("test",)),
        (tiny(validation_size=10), ("validation",)),
        (tiny(evaluate_on=("test", "train")), ("test", "train")),
    ):
        assert splits_to_score(config, open_dataset(config)) == expected
