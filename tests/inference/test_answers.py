from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from deepcnn.data.open import load_dataset
from deepcnn.devices import Place
from deepcnn.inference.answers import Answers
from deepcnn.inference.scoring import score
from deepcnn.models.build import build_model
from tests.helpers.tiny import CPU, TINY, transform_of, with_inputs


@pytest.mark.parametrize("views", ["shifted", "unsure"])
def test_answers_are_averaged_over_the_views(views: Literal["shifted", "unsure"]) -> None:
    arrays = load_dataset("synthetic", "test")
    transform = transform_of(with_inputs(TINY, views=views))
    model = build_model("tutorial", widths=(8, 8, 32, 16)).eval()
    model.get_parameter("softmax_linear.weight").data.mul_(100.0)  # so that views differ
    images, labels = torch.from_numpy(arrays.images), torch.from_numpy(arrays.labels)
    central = transform.evaluate(images)
    padded = F.pad(central, (1, 1, 1, 1), mode="reflect")
    with torch.no_grad():

        def both(view: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = (model(view) + model(view.flip(3))).double() / 2
            return logits

        shifted = (both(padded[:, :, :24, :24]) + both(padded[:, :, 2:, 2:])) / 2
        logits = (both(central) + shifted) / 2
        if views == "unsure":
            best = both(central).sort(1).values[:, -2:]
            order = (best[:, 1] - best[:, 0]).argsort()
            logits[order[len(arrays) // 4 :]] = both(central)[order[len(arrays) // 4 :]]
    answers = Answers(model, transform, Place(CPU, "fp32"))
    found = score(answers, [(images, labels)])
    assert found.correct == int((logits.argmax(1) == labels).sum())
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    torch.testing.assert_close(
        answers.probabilities(images).double(), logits.softmax(1), rtol=1e-3, atol=1e-4
    )
