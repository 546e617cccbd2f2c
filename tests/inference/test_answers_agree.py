from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepcnn
from deepcnn.data.arrays import Arrays
from deepcnn.data.open import load_dataset
from deepcnn.data.source import in_memory
from deepcnn.devices import Place
from deepcnn.inference.answers import Answers, NumpyAnswers, margins
from deepcnn.inference.load import load
from deepcnn.inputs.transform import Transform
from deepcnn.models.build import build_model
from deepcnn.runs.log import read_log
from deepcnn.settings import Views
from deepcnn.training.start import train
from tests.helpers.tiny import tiny

PLACE = Place(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def some(cifar10_test: Arrays) -> Arrays:
    return cifar10_test.select(slice(0, 40))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    built = build_model("tutorial", shape=(3, 24, 24), widths=(8, 8, 32, 16)).eval()
    built.get_parameter("softmax_linear.weight").data.mul_(100.0)  # so that views differ
    return built


def transform(arrays: Arrays, views: Views) -> Transform:
    source = in_memory(arrays)
    return Transform.of(
        source, crop=0.75, pad=0, flip="none", contrast=None, standardize="image", views=views
    )


@torch.no_grad()
def directly(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean logits, float64, over an image with its mirror image, and over both of them shifted."""
    values = images[:, 4:28, 4:28].permute(0, 3, 1, 2).double()
    mean = values.mean((1, 2, 3), keepdim=True)
    std = values.std((1, 2, 3), correction=0, keepdim=True).clamp(min=1 / (3 * 24 * 24) ** 0.5)
    central = ((values - mean) / std).float()
    padded = F.pad(central, (1, 1, 1, 1), mode="reflect")

    def both(view: Tensor) -> Tensor:
        logits: Tensor = (model(view) + model(view.flip(3))).double() / 2
        return logits

    return both(central), (both(padded[:, :, :24, :24]) + both(padded[:, :, 2:, 2:])) / 2


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_images_below_the_margin_are_looked_at_six_times(some: Arrays, model: nn.Module) -> None:
    images = torch.from_numpy(some.images)
    first, again = directly(model, images)
    two = first.sort(1).values
    apart = two[:, -1] - two[:, -2]
    margin = float(apart.median()) + 1e-6
    unsure = apart < margin
    assert unsure.sum() == 20
    answers = Answers(model, transform(some, "unsure"), PLACE, margin)
    expected = torch.where(unsure[:, None], (first + again) / 2, first)
    logits = answers.logits(images)
    assert logits.dtype == torch.float32
    assert close(logits, expected)
    assert not close(first.float(), (first + again) / 2)
    assert close(answers.first_look(images), first)
    for share, seen in ((-1.0, first), (float(apart.max()) + 1, (first + again) / 2)):
        assert close(Answers(model, transform(some, "unsure"), PLACE, share).logits(images), seen)


def test_without_a_margin_there_are_six_views(some: Arrays, model: nn.Module) -> None:
    images = torch.from_numpy(some.images)
    first, again = directly(model, images)
    assert close(
        Answers(model, transform(some, "unsure"), PLACE).logits(images), (first + again) / 2
    )
    shifted = Answers(model, transform(some, "shifted"), PLACE)
    assert close(shifted.logits(images), (first + again) / 2)
    assert close(Answers(model, transform(some, "mirrored"), PLACE, 9.0).logits(images), first)
    one = Answers(model, transform(some, "one"), PLACE).logits(images)
    with torch.no_grad():
        assert close(one, model(transform(some, "one").evaluate(images)).double())


@pytest.mark.parametrize("margin", [None, 2.0])
@pytest.mark.parametrize("views", ["one", "unsure"])
def test_an_answer_does_not_depend_on_the_images_beside_it(
    some: Arrays, model: nn.Module, views: Views, margin: float | None
) -> None:
    answers = Answers(model, transform(some, views), PLACE, margin)
    images = torch.from_numpy(some.images)
    together = answers.logits(images).softmax(1)
    alone = torch.cat([answers.logits(image[None]) for image in images]).softmax(1)
    assert torch.equal(together.argmax(1), alone.argmax(1))
    assert (together - alone).abs().max() < 1e-6
    turned = answers.logits(images.flip(0)).softmax(1).flip(0)
    assert (together - turned).abs().max() < 1e-6


def test_pictures_are_answered_alike_alone_and_among_others(unsure_run: Path) -> None:
    """From a run whose margin was found in its training."""
    images = load_dataset("synthetic", "test").images[:50]
    classifier = load(unsure_run, device="cpu")
    assert classifier.calibration is not None
    assert classifier.calibration.margin is not None
    together = list(classifier.predict(images))
    assert 0 < sum(found.unsure is not None for found in together) < 50
    for image, expected in zip(images, together, strict=True):
        (found,) = classifier.predict(image)
        assert (found.label, found.unsure) == (expected.label, expected.unsure)
        assert np.abs(found.probabilities - expected.probabilities).max() < 1e-6


def test_arrays_that_cannot_be_written_or_lie_in_another_order_are_taken(
    some: Arrays, model: nn.Module
) -> None:
    answers = NumpyAnswers(Answers(model, transform(some, "one"), PLACE))
    expected = answers.logits(some.images)
    assert expected.dtype == np.float32
    assert expected.shape == (40, 10)
    frozen = some.images.copy()
    frozen.flags.writeable = False
    assert np.array_equal(answers.logits(frozen), expected)
    assert np.array_equal(answers.logits(some.images[::-1])[::-1], expected)


def test_margins_are_between_the_two_largest() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.5], [2.0, 2.0, 0.0]])
    assert margins(logits).tolist() == [1.5, 0.0]
    assert margins(logits[:, :1]).tolist() == [0.0, 0.0]


# After a training all numbers agree


@pytest.mark.parametrize("run", ["tiny_run", "unsure_run"])
def test_the_score_at_the_end_of_a_training_is_that_of_evaluate(
    run: str, request: pytest.FixtureRequest
) -> None:
    """Also after bf16: what is answered is computed in fp32."""
    path: Path = request.getfixturevalue(run)
    assert deepcnn.evaluate(path, device="cpu") == scored(path)


def scored(run: Path) -> object:
    from deepcnn.training.scores import logged_scores

    (step,) = {
        event["step"] for event in read_log(run / "log.jsonl") if event["event"] == "Finished"
    }
    (found,) = logged_scores(run / "log.jsonl", step=step)
    return found


def test_a_result_has_all_answers_about_the_split(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny(steps=5), precision="bf16")
    result = train(config, run_dir=tmp_path / "run")
    answered, evaluated = result.answered, result.evaluated
    assert answered is not None
    assert evaluated is not None
    assert (answered.step, answered.averaged, answered.split) == (5, True, "test")
    assert (answered.correct, len(answered)) == (evaluated.correct, evaluated.total)
    test = load_dataset("synthetic", "test")
    assert np.array_equal(answered.labels, test.labels)
    classifier = load(tmp_path / "run", device="cpu")
    found = classifier.probabilities(test.images)
    np.testing.assert_allclose(answered.probabilities(), found, atol=1e-6)
    assert classifier.calibration == answered.calibration
    loss = F.cross_entropy(torch.from_numpy(answered.logits), torch.from_numpy(answered.labels))
    assert float(loss) == pytest.approx(evaluated.loss, rel=1e-5)
    assert result == dataclasses.replace(result)
    assert len(repr(result)) < 1000
    assert len(repr(answered.calibration)) < 1000


def test_bf16_is_another_answer(tiny_run: Path) -> None:
    images = load_dataset("synthetic", "test").images[:20]
    exact = load(tiny_run, device="cpu").probabilities(images)
    rough = load(tiny_run, device="cpu", precision="bf16").probabilities(images)
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(exact, rough, atol=0.1)


@pytest.mark.parametrize("standardize", ["image", "mean_image"])
def test_ten_views_are_ten_answers_whose_probabilities_are_averaged(
    some: Arrays, model: nn.Module, standardize: Literal["image", "mean_image"]
) -> None:
    ten = dataclasses.replace(transform(some, "ten"), standardize=standardize)
    ten = dataclasses.replace(ten, mean=(120.0,) * (24 * 24 * 3))
    alone = dataclasses.replace(ten, views="one", height=24, width=24)
    images = some.images[:20]
    found = []
    for r, c in ((4, 4), (0, 0), (0, 8), (8, 0), (8, 8)):
        crop = images[:, r : r + 24, c : c + 24]
        for view in (crop, crop[:, :, ::-1].copy()):
            found.append(NumpyAnswers(Answers(model, alone, PLACE)).logits(view).astype(float))
    each = np.exp(found) / np.exp(found).sum(2, keepdims=True)
    expected = each.mean(0)
    assert np.abs(each - expected).max() > 0.1  # the views differ
    logits = NumpyAnswers(Answers(model, ten, PLACE)).logits(images).astype(float)
    powers = np.exp(logits)
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), expected, atol=1e-5)
    evidence = np.log(np.exp(found).sum(2)).mean(0)
    np.testing.assert_allclose(np.log(powers.sum(1)), evidence, atol=1e-4)
